"""Spreading a run over workers (pytest-xdist): how many they are, who gets which test when."""

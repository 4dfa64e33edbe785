"""Measurements of trapline itself, each beside its floor and its peers in the same run."""

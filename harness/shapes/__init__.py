"""Devices that could exist: described, served, programmed, and judged by the oracle."""

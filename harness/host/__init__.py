"""Boxes on which the QEMU under test runs: virtual, local, over SSH."""

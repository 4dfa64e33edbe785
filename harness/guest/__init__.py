"""The system inside a machine, reached over SSH."""

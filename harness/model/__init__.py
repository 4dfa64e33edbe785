"""Pure values and functions: no files, no processes, no sockets."""

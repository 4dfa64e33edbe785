"""One QEMU process: builds, command lines, QMP, console, traces."""

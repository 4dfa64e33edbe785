"""What the AP bus, vfio_ap and their operators may do; no I/O."""

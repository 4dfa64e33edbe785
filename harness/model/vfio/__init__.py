"""What vfio-pci maps, traps, refuses and calls its regions; no I/O."""

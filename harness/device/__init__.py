"""PCI devices written in Python and served over the vfio-user protocol."""

"""What intel-iommu shows, accepts and refuses; no I/O."""

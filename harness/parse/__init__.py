"""Text and bytes of tools and kernels, turned into model values."""

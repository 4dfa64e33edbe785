"""Images and QEMU builds: recipes in, content-addressed read-only files out."""

"""Devices of the world as shapes, by name; what each is there for is in docs/named-shapes.md."""

"""Nothing: the plugin comes from the entry point, settings from pyproject.toml."""

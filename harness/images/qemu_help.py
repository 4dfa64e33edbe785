"""What QEMU prints when asked for help. Pure."""

from __future__ import annotations

import re

_DEVICE = re.compile(r'^name "([^"]+)"(?:.*?alias "([^"]+)")?', re.MULTILINE)
_PROPERTY = re.compile(r"^\s+([\w.\-\[\]/]+)=<", re.MULTILINE)


def parse_devices(text: str) -> frozenset[str]:
    """Parse ``-device help``: names and aliases (qdev-monitor.c:qdev_print_devinfo)."""
    return frozenset(name for match in _DEVICE.finditer(text) for name in match.groups() if name)


def parse_properties(text: str) -> frozenset[str]:
    """Parse ``-device X,help``: property names (qdev-monitor.c:qdev_device_help)."""
    return frozenset(_PROPERTY.findall(text))


def parse_names(text: str) -> frozenset[str]:
    """Parse ``-accel help``, ``-netdev help``, ``-machine help``: the first word of each line.

    The heading ends with a colon and is no name.
    """
    rows = (line.split() for line in text.splitlines() if not line.rstrip().endswith(":"))
    return frozenset(words[0] for words in rows if words)

"""What a driver in user space may reach, told from the device node that the kernel gives it.

Linux: ``drivers/uio/uio.c`` (``/dev/uioN``), ``drivers/vfio/group.c`` (``/dev/vfio/N`` and, where
no IOMMU has the function, ``/dev/vfio/noiommu-N``), ``drivers/vfio/device_cdev.c``
(``/dev/vfio/devices/vfioN``, ``noiommu-vfioN``).
"""

from __future__ import annotations

import enum
import re


class Exposure(enum.Enum):
    """How much memory of its system the process can reach through the device."""

    MAPPED = "what it has mapped"
    """Safe: an IOMMU stands between."""
    ALL = "all memory"
    """Unsafe: nothing stands between, unless the system has an IOMMU for reasons of its own."""


_NODES = (
    (re.compile(r"/dev/vfio/\d+"), Exposure.MAPPED),
    (re.compile(r"/dev/vfio/devices/vfio\d+"), Exposure.MAPPED),
    (re.compile(r"/dev/vfio/noiommu-\d+"), Exposure.ALL),
    (re.compile(r"/dev/vfio/devices/noiommu-vfio\d+"), Exposure.ALL),
    (re.compile(r"/dev/uio\d+"), Exposure.ALL),
)


def exposure_of(node: str) -> Exposure:
    """Return what who opens *node* can reach.

    :raise ValueError: it is no node of a driver in user space.
    """
    for pattern, exposure in _NODES:
        if pattern.fullmatch(node):
            return exposure
    raise ValueError(f"{node} is no node of vfio or UIO")

"""Device nodes that a system offers to drivers in user space."""

from __future__ import annotations

from contextlib import AbstractContextManager

from harness.errors import HostError
from harness.guest.system import System
from harness.model.pci import Bdf

_SWITCH = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
_NODE = """
d=/sys/bus/pci/devices/{bdf}
for u in $d/uio/uio*; do [ -e "$u" ] && echo "/dev/${{u##*/}}" && exit; done
g=$(readlink $d/iommu_group) || exit 0
g=${{g##*/}}
for n in /dev/vfio/$g /dev/vfio/noiommu-$g; do [ -e $n ] && echo $n; done
:
"""


def node_of(system: System, bdf: Bdf) -> str:
    """Return the node by which *bdf*, which UIO or vfio-pci has, is opened.

    :raise HostError: there is none.
    """
    found = system.run(_NODE.format(bdf=bdf)).stdout.split()
    if len(found) != 1:
        raise HostError(f"{system.name} has no one node for {bdf}", seen=" ".join(found))
    return found[0]


def knows_noiommu(system: System) -> bool:
    """Say whether the kernel can do without an IOMMU (``CONFIG_VFIO_NOIOMMU``)."""
    system.run("modprobe vfio 2>/dev/null || :")
    return system.exists(_SWITCH)


def noiommu_allowed(system: System) -> AbstractContextManager[None]:
    """Have ``vfio.enable_unsafe_noiommu_mode`` on while inside."""
    return system.setting(_SWITCH, "Y")


def taint(system: System) -> int:
    """Return the kernel's taint bits; 6 is TAINT_USER (Documentation/admin-guide)."""
    return int(system.read_text("/proc/sys/kernel/tainted"))


def opened_by_nobody(system: System, node: str) -> str:
    """Let a process without capabilities open *node*, whose mode lets it; return what it said.

    Empty: it could open it. The mode is put back.
    """
    return system.run(
        f"m=$(stat -c %a {node}); chmod 666 {node};"
        f" su -s /bin/sh nobody -c ': < {node}' 2>&1; chmod $m {node}",
        check=False,
    ).stdout.strip()

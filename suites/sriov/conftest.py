"""A function with SR-IOV on the host, with and without virtual functions.

============  ===================================================================================
``igb``       the igb with its own driver and no virtual functions
``family``    the same with two of them
``plain``     a function without SR-IOV
============  ===================================================================================

All of them take the device away from the machine that has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.guest.sriov import Sriov
from harness.host.host import Host
from harness.lab.resident import Resident
from harness.model.pci import PciFunction

ARI, SRIOV = 0x0E, 0x10
"""Extended capability ids (PCIe 6.0, 7.8.8 and 9.3.3)."""
COUNT = 2
"""Virtual functions of `family`."""


@dataclass(frozen=True, slots=True)
class Family:
    """A physical function and its virtual functions."""

    physical: PciFunction
    virtual: tuple[PciFunction, ...]

    def word(self, offset: int) -> int:
        """Return 16 bits of the SR-IOV capability (PCIe 6.0, 9.3.3)."""
        start = self.capability(SRIOV) + offset
        return int.from_bytes(self.physical.config[start : start + 2], "little")

    def capability(self, number: int) -> int:
        """Return where an extended capability of the physical function lies."""
        return next(c.offset for c in self.physical.capabilities if c.extended and c.id == number)


@pytest.fixture(scope="module")
def igb(host: Host, resident: Resident) -> Iterator[Sriov]:
    """The igb with the driver that makes virtual functions; it has none before and after."""
    bdf = resident.free("igb").bdf
    host.load_driver("igb")
    with host.bound(bdf, "igb"):
        yield Sriov(host, bdf)


@pytest.fixture
def plain(host: Host, resident: Resident) -> Sriov:
    """The e1000e, which has no SR-IOV."""
    return Sriov(host, resident.free("e1000e").bdf)


@pytest.fixture(scope="module")
def family(igb: Sriov) -> Iterator[Family]:
    """The igb with two virtual functions; none afterwards."""
    with igb.enabled(COUNT) as virtual:
        yield Family(igb.system.function(igb.bdf), virtual)


def check_refused(function: Sriov, count: int, errno: str, *log: str) -> None:
    """The number is refused with the errno, and the kernel logs why; nothing is changed."""
    system, before = function.system, function.read("numvfs")
    mark = system.kernel_log_mark()

    said = function.write("numvfs", count)

    assert errno in said, said or "accepted"
    logged = system.kernel_log_since(mark)
    assert all(words in logged for words in log), logged
    assert function.read("numvfs") == before

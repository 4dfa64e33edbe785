"""Functions with SR-IOV, with and without virtual functions.

==============  =================================================================================
``stage``       a virtual host of its own with an igb, a peer on its wire, and a guest
``nvme_stage``  another with an nvme family and its disk, and a guest; it boots
``igb``         the igb with its own driver: that of the stage, or of the host that is given
``family``      the same with two virtual functions that nobody drives
``plain``       a function without SR-IOV
==============  =================================================================================

Making virtual functions go takes Linux 2.6 s (1 s in ``sriov_disable()``, 0.6 s in
``igb_disable_sriov()``, the rest starts the igb anew), so those of `family` stay as long as
the stage.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.guest.keys import RunKey
from harness.guest.sriov import Sriov
from harness.host.host import Host
from harness.lab.parts import Parts
from harness.lab.resident import Resident
from harness.lab.sriov_stage import SriovStage, open_igb_stage, open_nvme_stage
from harness.model.pci import Bdf, PciFunction

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


@pytest.fixture(scope="session")
def stage(
    lab_parts: Parts, run_key: RunKey, shared_evidence: Callable[[str], Path]
) -> Iterator[SriovStage]:
    """A virtual host with an igb, a peer on its wire, and a guest."""
    evidence = shared_evidence("sriov-igb")
    with contextlib.closing(open_igb_stage(lab_parts, key=run_key, evidence=evidence)) as opened:
        yield opened


@pytest.fixture(scope="session")
def nvme_stage(
    lab_parts: Parts, run_key: RunKey, shared_evidence: Callable[[str], Path]
) -> Iterator[SriovStage]:
    """A virtual host with an nvme family, its disk, and a guest."""
    evidence = shared_evidence("sriov-nvme")
    with contextlib.closing(open_nvme_stage(lab_parts, key=run_key, evidence=evidence)) as opened:
        yield opened


@pytest.fixture(scope="session")
def igb(parts: Parts, request: pytest.FixtureRequest) -> Iterator[Sriov]:
    """The igb with the driver that makes virtual functions; nobody drives those."""
    if parts.settings.host == "virtual":
        stage: SriovStage = request.getfixturevalue("stage")
        stage.family.write("drivers_autoprobe", 0)
        yield stage.family
        return
    host: Host = request.getfixturevalue("host")
    resident: Resident = request.getfixturevalue("resident")
    bdf = resident.free("igb").bdf
    # That of the virtual functions, too: it must be there to take none.
    host.load_driver("igb")
    host.load_driver("igbvf")
    found = Sriov(host, bdf)
    with host.bound(bdf, "igb"), found.setting("drivers_autoprobe", 0):
        yield found


@pytest.fixture
def plain(igb: Sriov) -> Sriov:
    """The host bridge, which has no SR-IOV."""
    return Sriov(igb.system, Bdf(0, 0, 0, 0))


@pytest.fixture(scope="session")
def made(igb: Sriov, parts: Parts) -> Iterator[None]:
    """The igb has two virtual functions; on a host that stays they go at the end."""
    if parts.settings.host == "virtual":
        assert not (said := igb.write("numvfs", COUNT)), said
        yield
        return
    with igb.enabled(COUNT):
        yield


@pytest.fixture(scope="module")
def family(igb: Sriov, made: None) -> Family:
    """The igb with two virtual functions, as its system shows them."""
    return Family(igb.system.function(igb.bdf), igb.virtual())


def check_refused(function: Sriov, count: int, errno: str, *log: str) -> None:
    """The number is refused with the errno, and the kernel logs why; nothing is changed."""
    system, before = function.system, function.read("numvfs")
    mark = system.kernel_log_mark()

    said = function.write("numvfs", count)

    assert errno in said, said or "accepted"
    logged = system.kernel_log_since(mark)
    assert all(words in logged for words in log), logged or "nothing was logged"
    assert function.read("numvfs") == before

"""Devices behind an IOMMU, moved by a driver in user space: plots, see `harness.lab.grounds`.

==========  ===================================================================================
``plot``    a device on a ground; the test is repeated for each that is named with `on`
``engine``  the device of the plot, ready to be told where to write and read
``grounds`` opens hosts and guests whose kernels use their IOMMU in different ways
==========  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import pytest

from harness.guest.dma_engine import DmaEngine
from harness.guest.edu import Edu
from harness.guest.keys import RunKey
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import INTEL_IOMMU, TEST_DEVICES
from harness.lab.grounds import Grounds, GuestGround, Plot
from harness.lab.hosts import open_virtual
from harness.lab.parts import Parts
from harness.lab.resident import Resident
from harness.lab.vtd import properties_of
from harness.machine.command import Device
from harness.model.vtd.config import VtdConfig
from harness.suite_fixtures import AnotherHost
from harness.testing import skip
from suites.intel_iommu.conftest import EMULATED as VTD_EMULATED
from suites.intel_iommu.conftest import GUEST as VTD
from suites.intel_iommu.conftest import TRACED
from suites.viommu.conftest import AMD, VIRTIO, has

HOSTS = {"L1-lazy": "iommu.strict=0", "L1-pt": "iommu=pt"}
"""Words for the kernel of virtual hosts of their own; without caching mode, or none is lazy."""
GUESTS = ("L2-intel", "L2-pt", "L2-virtio")
"""Guests with all devices, see `guest_grounds`."""
ALONE = ("L2-lazy-emulated", "L2-amd-emulated", "L2-amd-edu")
"""Plots without a neighbour: a lazy guest can have no assigned devices (caching mode makes it
strict), one with amd-iommu since QEMU 10.2."""
ASSIGNED = ("edu", "nvme")
EVERYWHERE = tuple(
    [f"{ground}-{device}" for ground in ("L1-strict", *HOSTS) for device in ASSIGNED]
    + [f"{ground}-{device}" for ground in GUESTS for device in (*ASSIGNED, "emulated")]
    + [*ALONE]
)
"""Every plot; those of a ground follow each other. L1-strict is the host as it is (VTD-50)."""
LAZY = VtdConfig.of(intremap=True)
"""Without caching mode, or no domain is lazy."""
PAIRED = tuple(plot for plot in EVERYWHERE if plot not in ALONE)
"""Where there is a second device."""
TELLING = tuple(plot for plot in EVERYWHERE if plot != "L2-amd-emulated")
"""Where the owner is told; of amd-iommu it is not: docs/findings/amd-iommu-silence.md."""
CORE = (
    "L1-strict-edu", "L1-strict-nvme",
    "L2-intel-edu", "L2-intel-nvme", "L2-intel-emulated", "L2-virtio-emulated",
)  # fmt: skip
"""Where every test of a kind runs; on the other plots the one that says most."""
DEFAULT = ("L1-strict-edu",)
"""On a machine that other areas want too: a test or two of it belong to every run."""
CONTROLS = ("L1-strict-edu", "L1-strict-nvme", "L2-intel-edu", "L2-virtio-emulated")
"""Where the negative controls run: both devices, both levels, two kinds of IOMMU."""


def on(*plots: str, always: Collection[str] = ()) -> pytest.MarkDecorator:
    """Repeat the test for these plots: for those in *always* in every run, else in full ones."""
    marked = [
        pytest.param(plot, marks=[] if plot in always else [pytest.mark.full]) for plot in plots
    ]
    return pytest.mark.parametrize("place", marked, indirect=True, scope="package")


def at(places: Mapping[str, int], rest: str) -> pytest.MarkDecorator:
    """Repeat the test for these offsets: all of them in `CORE`, that called *rest* elsewhere."""
    cases = [
        pytest.param(plot, offset, id=f"{name}-{plot}", marks=[pytest.mark.full])
        for plot in EVERYWHERE
        for name, offset in places.items()
        if plot in CORE or name == rest
    ]
    return pytest.mark.parametrize(("place", "offset"), cases, indirect=["place"], scope="package")


def edus(*plots: str) -> tuple[str, ...]:
    """Return those of *plots* whose device is an edu: it is slow enough to be overtaken."""
    return tuple(plot for plot in plots if not plot.endswith("nvme"))


def guest_grounds(host: Host) -> dict[str, GuestGround]:
    """Return the guests; the lazy one and that with ``iommu=pt`` are booted for this area only.

    Since 10.2 amd-iommu translates nothing without ``dma-remap``, and takes assigned functions.
    """
    remaps = "dma-remap" in host.qemu.features.device_properties(AMD.driver)
    amd = AMD.having(dma_remap=True) if remaps else AMD
    vtd = Device("intel-iommu", "iommu", options=VTD.arguments(properties_of(host)))
    lazy = Device("intel-iommu", "iommu", options=LAZY.arguments(properties_of(host)))
    traced = tuple(word for event in TRACED for word in ("-trace", event))
    strict = GuestGround(
        vtd, "intel_iommu=on iommu.strict=1", emulated=(VTD_EMULATED,), extra=traced
    )
    return {
        "L2-intel": strict,
        "L2-pt": GuestGround(vtd, "intel_iommu=on iommu=pt", emulated=(VTD_EMULATED,)),
        "L2-virtio": GuestGround(VIRTIO, "trapline.modules=virtio_iommu", dialect="virtio"),
        "L2-lazy": GuestGround(lazy, "intel_iommu=on iommu.strict=0", assigned=()),
        "L2-amd": GuestGround(amd, assigned=("edu",) if remaps else (), dialect="amd"),
        "L2-amd-plain": GuestGround(AMD, assigned=(), dialect="amd"),
    }


@pytest.fixture(scope="package")
def grounds(
    resident: Resident,
    host: Host,
    parts: Parts,
    run_key: RunKey,
    shared_evidence: Callable[[str], Path],
) -> Iterator[Grounds]:
    """Keeper of hosts and guests."""

    def open_host(append: str, evidence: Path) -> VirtualHost:
        if not isinstance(host, VirtualHost):
            skip("wants a host with another kernel line", enabled_by="--host virtual")
        return open_virtual(
            parts,
            key=run_key,
            evidence=evidence,
            iommu=INTEL_IOMMU.having(caching_mode=False),
            append=append,
            devices=[name for name in ASSIGNED if name in parts.devices],
        )

    opened = Grounds(resident, open_host, shared_evidence, HOSTS, guest_grounds(host))
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="package")
def place(request: pytest.FixtureRequest) -> str:
    """The name of the plot; tests of one place follow each other."""
    name: str = request.param
    return name


@pytest.fixture
def plot(place: str, grounds: Grounds, host: Host) -> Plot:
    """A device behind an IOMMU."""
    ground, _, device = place.rpartition("-")
    if ground.startswith("L2-amd"):
        has(host, AMD.driver)
    return grounds.plot(ground, device)


@pytest.fixture
def engine(plot: Plot) -> Iterator[DmaEngine]:
    """Its engine, ready."""
    with plot.engine() as found:
        yield found


@pytest.fixture(scope="package")
def bare(host: Host, another_host: AnotherHost) -> Iterator[VirtualHost]:
    """A virtual host that has no IOMMU."""
    if not isinstance(host, VirtualHost):
        skip("wants a host without an IOMMU", enabled_by="--host virtual")
    with another_host("isolation-bare", None, devices=["edu"]) as opened:
        yield opened


@pytest.fixture
def bare_edu(bare: VirtualHost) -> Iterator[Edu]:
    """The edu of a host without IOMMU."""
    edu = Edu(bare, bare.find_one(TEST_DEVICES["edu"].id).bdf)
    edu.configure()
    yield edu

"""The map of a virtual function that is assigned, and who serves its pages.

It is assigned to a machine without a guest: one whose map was read would not let go of it any
more (docs/findings/info-mtree-leaks-flat-views.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.host.host import Host
from harness.lab.bare import bare_machine
from harness.lab.nested import properties_of
from harness.lab.shape_host import ShapeAssigned, ShapeMachine
from harness.lab.sriov_stage import SriovStage
from harness.machine.bare_reader import image
from harness.machine.command import Device
from harness.model.memory_map import Kind, MemoryMap, Region
from harness.model.pci import PciFunction
from harness.model.vfio.mapping import VfioOptions
from harness.testing import must_fail
from suites.sriov.conftest import COUNT, Family
from suites.traps.test_pages import check_served
from suites.vfio_pci.layout import Row, check_layout
from suites.vfio_pci.test_map import check_pba_is_mapped, check_table_is_trapped

pytestmark = pytest.mark.full

NAME, SLOT = "vf", 0x10
FIRMWARE = "/run/trapline-vf.bin"


@contextlib.contextmanager
def assigned_to_a_machine(
    host: Host, virtual: PciFunction, evidence: Path, options: VfioOptions | None = None
) -> Iterator[ShapeMachine]:
    """Have *virtual* in a machine whose vCPU reads what it is told, its BARs programmed."""
    host.transport.write(FIRMWARE, image())
    properties = {"host": str(virtual.bdf), **properties_of(options)}
    device = Device("vfio-pci", NAME, "pcie.0", f"{SLOT:#x}", properties)
    words = ("-bios", FIRMWARE)
    with (
        host.bound(virtual.bdf),
        bare_machine(host, device, evidence=evidence, name=evidence.name, words=words) as bare,
    ):
        bare.program(SLOT, virtual.bars)
        assigned = ShapeAssigned(
            NAME, virtual, host, bare.machine, options=options or VfioOptions()
        )
        yield ShapeMachine(bare.machine, {NAME: assigned}, bare.qtest)


@pytest.fixture(scope="module")
def igb_vf(
    stage: SriovStage, family: Family, shared_evidence: Callable[[str], Path]
) -> Iterator[ShapeMachine]:
    """The first virtual function of an igb, assigned."""
    place = shared_evidence("igb-vf")
    with assigned_to_a_machine(stage.host, family.virtual[0], place) as machine:
        yield machine


@pytest.fixture(scope="module")
def igb_vf_unmapped(
    stage: SriovStage, family: Family, shared_evidence: Callable[[str], Path]
) -> Iterator[ShapeMachine]:
    """The second, with x-no-mmap."""
    place, options = shared_evidence("igb-vf-unmapped"), VfioOptions(no_mmap=True)
    with assigned_to_a_machine(stage.host, family.virtual[1], place, options) as machine:
        yield machine


@pytest.fixture(scope="module")
def nvme_vf(
    nvme_stage: SriovStage, shared_evidence: Callable[[str], Path]
) -> Iterator[ShapeMachine]:
    """The first virtual function of an nvme, assigned; its controller need not be online."""
    place = shared_evidence("nvme-vf")
    with (
        nvme_stage.family.setting("drivers_autoprobe", 0),
        nvme_stage.family.enabled(COUNT) as virtual,
        assigned_to_a_machine(nvme_stage.host, virtual[0], place) as machine,
    ):
        yield machine


def check_map(machine: ShapeMachine, found: MemoryMap, options: VfioOptions) -> None:
    """Each row of each BAR is what function, kernel and options imply."""
    expected = replace(machine.assigned[NAME], options=options).expectation()
    assert not expected.compare(found), expected.explain(found)


def the_other_way(row: Region) -> Region:
    """Return the row, trapped if it is mapped, mapped if it is trapped."""
    other = {Kind.RAMD: Kind.IO, Kind.IO: Kind.RAMD}
    return replace(row, kind=other.get(row.kind, row.kind))


# -- of an igb --------------------------------------------------------------------------------


@pytest.mark.rule("MAP-01", "MAP-04", "NM-01", "SRV-20")
def test_map_of_an_igb_function(igb_vf: ShapeMachine) -> None:
    """Every byte of its BARs is mapped or trapped as function, kernel and options imply."""
    check_map(igb_vf, igb_vf.map, VfioOptions())


@pytest.mark.negative_control("MAP-01", "MAP-04", "NM-01", "SRV-20")
def test_an_unmapped_igb_function_is_noticed(igb_vf_unmapped: ShapeMachine) -> None:
    """With x-no-mmap another one is not mapped like that."""
    with must_fail():
        check_map(igb_vf_unmapped, igb_vf_unmapped.map, VfioOptions())


REGISTERS: list[Row] = [(0x0, 0x3FFF, "ramd", "BAR 0 mmaps[0]", True)]
VECTORS: list[Row] = [
    (0x00, 0x2F, "i/o", "msix-table", False),
    (0x30, 0x3FFF, "ramd", "BAR 3 mmaps[0]", False),
]
"""3 vectors; page 0 is mixed."""

by_bar = pytest.mark.parametrize(("bar", "rows"), [(0, REGISTERS), (3, VECTORS)])


@by_bar
@pytest.mark.rule("SRV-20")
def test_layout_of_an_igb_function(igb_vf: ShapeMachine, bar: int, rows: list[Row]) -> None:
    """BAR 0 is all its own; of BAR 3 the table of three vectors is trapped, the rest its own."""
    check_layout(igb_vf.assigned[NAME], bar, rows, igb_vf.map)


@by_bar
@pytest.mark.negative_control("SRV-20")
def test_another_layout_is_noticed(
    igb_vf_unmapped: ShapeMachine, bar: int, rows: list[Row]
) -> None:
    """The function that is not mapped has another."""
    with must_fail():
        check_layout(igb_vf_unmapped.assigned[NAME], bar, rows, igb_vf_unmapped.map)


@pytest.mark.parametrize("bar", [0, 3])
@pytest.mark.rule("TRP-09", "TRP-07")
def test_pages_of_an_igb_function_are_served_as_the_map_says(
    igb_vf: ShapeMachine, bar: int
) -> None:
    """Each page is direct or trapped as the map of its machine says."""
    check_served(igb_vf, NAME, bar, igb_vf.map)


@pytest.mark.parametrize("bar", [0, 3])
@pytest.mark.rule("TRP-09", "TRP-07")
@pytest.mark.negative_control("TRP-09", "TRP-07")
def test_pages_of_an_unmapped_igb_function_are_all_trapped(
    igb_vf_unmapped: ShapeMachine, bar: int
) -> None:
    """With x-no-mmap they are served as its own map says, and not as if they were mapped."""
    mapped = igb_vf_unmapped.map.altered(the_other_way)

    check_served(igb_vf_unmapped, NAME, bar, igb_vf_unmapped.map)
    with must_fail():
        check_served(igb_vf_unmapped, NAME, bar, mapped)


# -- of an nvme -------------------------------------------------------------------------------


@pytest.mark.rule("MAP-01", "MAP-04", "NM-01")
@pytest.mark.negative_control("MAP-01", "MAP-04", "NM-01")
def test_map_of_an_nvme_function(nvme_vf: ShapeMachine) -> None:
    """The same for a virtual function whose table is among its registers."""
    check_map(nvme_vf, nvme_vf.map, VfioOptions())
    with must_fail():
        check_map(nvme_vf, nvme_vf.map, VfioOptions(no_mmap=True))


@pytest.mark.rule("MAP-02", "MAP-09")
@pytest.mark.negative_control("MAP-02", "MAP-09")
def test_table_of_an_nvme_function_is_trapped(nvme_vf: ShapeMachine) -> None:
    """The table is trapped, 16 bytes per vector and no more; the pending bits are mapped."""
    assigned, given_away = nvme_vf.assigned[NAME], nvme_vf.map.altered(the_other_way)

    check_table_is_trapped(assigned, nvme_vf.map)
    check_pba_is_mapped(assigned, nvme_vf.map)
    with must_fail():
        check_table_is_trapped(assigned, given_away)
    with must_fail():
        check_pba_is_mapped(assigned, given_away)


@pytest.mark.rule("TRP-09", "TRP-07")
@pytest.mark.negative_control("TRP-09", "TRP-07")
def test_pages_of_an_nvme_function_are_served_as_the_map_says(nvme_vf: ShapeMachine) -> None:
    """Each page is direct or trapped as the map says, and not as one without the table does."""
    less = nvme_vf.map.without("msix-table")

    check_served(nvme_vf, NAME, 0, nvme_vf.map)
    with must_fail():
        check_served(nvme_vf, NAME, 0, less)

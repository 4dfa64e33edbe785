"""Regions that cannot be mapped, and pending bits that are not where the device says."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from harness.device.device import Device as ServedDevice
from harness.device.region_memory import RegionMemory
from harness.device.spec import BarSpec
from harness.model.memory_map import Kind
from harness.model.pci import BarKind
from harness.shapes.named.bench import Guest, NamedBench
from harness.shapes.named.catalogue import NAMED
from harness.testing import must_fail
from suites.named_shapes.conftest import ServeToQemu


class ReadOnlyFile(RegionMemory):
    """Memory whose descriptor is for reading only: nobody can map it for writing."""

    @property
    def fd(self) -> int:
        """Return such a descriptor."""
        if self._fd < 0:
            writable = super().fd
            self._fd = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY)
            os.close(writable)
        return self._fd


class WithFile(ServedDevice):
    """A device whose only BAR has memory of a kind."""

    bars = (BarSpec(0, BarKind.MEM64, 0x10000, direct=True),)

    def __init__(self, kind: type[RegionMemory]) -> None:
        super().__init__()
        self._file = kind("bar0", 0x10000)

    def region(self, bar: int) -> RegionMemory:
        """Return that memory."""
        return self._file


def check_warned(machine: NamedBench, name: str) -> None:
    """QEMU warned that BAR 0 could not be mapped, and serves it by messages."""
    words = f"Failed to mmap {machine[name].prefix} BAR 0. Performance may be slow"
    assert words in machine.machine.stderr()
    rows = machine.map.memory.covering(machine[name].window(0))
    assert {row.kind for row in rows} == {Kind.IO}, rows


@pytest.mark.rule("MAP-19")
def test_failed_mapping_is_a_warning(serve_to_qemu: ServeToQemu) -> None:
    """A region that cannot be mapped is warned of, and stays i/o; the device works."""
    check_warned(serve_to_qemu(Guest("device", WithFile(ReadOnlyFile))), "device")


@pytest.mark.negative_control("MAP-19")
def test_mapped_region_is_noticed(serve_to_qemu: ServeToQemu) -> None:
    """The check fails on a device whose memory can be mapped."""
    machine = serve_to_qemu(Guest("device", WithFile(RegionMemory)))

    with must_fail():
        check_warned(machine, "device")


# -- pending bits outside their BAR ------------------------------------------------------------

OUTSIDE: Final = "hardware reports invalid configuration, MSIX PBA outside of specified BAR"


def check_refused(said: str, expected: str) -> None:
    """QEMU refused the device with these words."""
    assert not said.startswith("accepted") and expected in said, said


@pytest.mark.parametrize("name", ["chelsio-vf", "kunlun-vf"])
@pytest.mark.rule("MAP-23")
def test_pba_outside_its_bar_is_refused(qemu_says: Callable[[Guest], str], name: str) -> None:
    """A device whose PBA is outside its BAR is refused."""
    stranger = replace(NAMED[name], id=NAMED["nvme"].id)

    check_refused(qemu_says(Guest("stranger", stranger.device())), OUTSIDE)


@pytest.mark.parametrize("name", ["chelsio-vf", "kunlun-vf"])
@pytest.mark.negative_control("MAP-23")
def test_accepted_device_is_noticed(qemu_says: Callable[[Guest], str], name: str) -> None:
    """The check fails on the two devices that QEMU knows and corrects."""
    said = qemu_says(Guest("known", NAMED[name].device()))

    with must_fail():
        check_refused(said, OUTSIDE)


def check_pba_window(bench: NamedBench, name: str, bar: int, offset: int) -> None:
    """The window over the pending bits lies at *offset* of BAR *bar*."""
    start = bench[name].window(bar).start
    rows = bench.map.memory.covering(bench[name].window(bar))
    found = [row.range.start - start for row in rows if row.name == "VFIO MSIX PBA"]
    assert found == [offset]


@pytest.mark.parametrize(
    ("name", "bar", "offset"), [("chelsio-vf", 4, 0x1000), ("kunlun-vf", 0, 0xB400)]
)
@pytest.mark.rule("MAP-23")
def test_known_devices_are_corrected(bench: NamedBench, name: str, bar: int, offset: int) -> None:
    """Of a Chelsio T5 or Baidu Kunlun virtual function the PBA is where it is in truth."""
    check_pba_window(bench, name, bar, offset)


@pytest.mark.negative_control("MAP-23")
def test_other_place_of_the_pba_is_noticed(bench: NamedBench) -> None:
    """The check fails for the place that the device itself names."""
    with must_fail():
        check_pba_window(bench, "chelsio-vf", 4, 0x8000)

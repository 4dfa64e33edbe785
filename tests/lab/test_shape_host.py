"""Shapes behind a real kernel: how vfio-pci gets them, and what options of theirs mean."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from harness.errors import HostError
from harness.host.virtual import VirtualHost
from harness.lab.shape_host import FIRST_SLOT, ShapeHost
from harness.model.pci import Bdf, PciFunction
from harness.model.vfio.mapping import VfioOptions
from harness.shapes.named.catalogue import NAMED

NAMES = ("nvidia", "igd-9", "qat-vf")


class FakeHost:
    """A host with the shapes; vfio-pci takes those that are not denied."""

    name = "host"

    def __init__(self, *denied: str) -> None:
        self.commands: list[str] = []
        self.denied = denied
        self.drivers: dict[str, str] = {}

    def functions(self) -> tuple[PciFunction, ...]:
        other = PciFunction(Bdf(0, 1, FIRST_SLOT, 0), NAMED["nvme"].id, 0)
        found = [
            PciFunction(Bdf(0, 0, FIRST_SLOT + n, 0), NAMED[name].id, NAMED[name].class_code)
            for n, name in enumerate(NAMES)
        ]
        return (other, *(replace(f, driver=self.drivers.get(str(f.bdf))) for f in found))

    def run(self, command: str) -> None:
        self.commands.append(command)
        for function in self.functions():
            if str(function.bdf) in command and str(function.id) not in self.denied:
                self.drivers[str(function.bdf)] = "vfio-pci"


def shape_host(host: FakeHost) -> ShapeHost:
    slots = {name: FIRST_SLOT + n for n, name in enumerate(NAMES)}
    return ShapeHost(cast(VirtualHost, host), {n: NAMED[n] for n in NAMES}, {}, slots)


def test_functions_are_found_by_their_slots_on_the_root_bus() -> None:
    found = shape_host(FakeHost()).functions()

    assert {name: function.id for name, function in found.items()} == {
        name: NAMED[name].id for name in NAMES
    }


def test_all_are_bound_by_one_command_and_once() -> None:
    host = FakeHost()
    there = shape_host(host)

    found = there.bound("nvidia", "qat-vf")
    there.bound("qat-vf")

    assert {function.driver for function in found.values()} == {"vfio-pci"}
    assert len(host.commands) == 1
    assert "for f in 0000:00:10.0 0000:00:12.0; do" in host.commands[0]


def test_denied_function_is_an_error_with_its_name() -> None:
    there = shape_host(FakeHost("8086:37c9"))

    with pytest.raises(HostError, match="vfio-pci does not take qat-vf of host"):
        there.bound("nvidia", "qat-vf")


def test_options_become_properties() -> None:
    there = shape_host(FakeHost())

    assert there.properties("nvidia", VfioOptions(vga=True)) == {"x-vga": True}
    assert there.properties("qat-vf", VfioOptions(no_mmap=True)) == {"x-no-mmap": True}


def test_integrated_graphics_have_no_op_region() -> None:
    there = shape_host(FakeHost())

    assert there.properties("igd-9", VfioOptions(igd_gms=True)) == {
        "x-igd-gms": 1,
        "x-igd-opregion": False,
    }


def test_device_has_the_slot_that_it_has_on_the_host() -> None:
    there = shape_host(FakeHost())

    device = there.device("qat-vf", there.functions()["qat-vf"], x_no_mmap=True)

    assert str(device) == (
        "vfio-pci,id=qat-vf,bus=pcie.0,addr=0x12,host=0000:00:12.0,x-no-mmap=on"
    )

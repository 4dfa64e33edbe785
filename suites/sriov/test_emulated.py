"""Devices with SR-IOV that QEMU emulates: what it refuses, what is there unused."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from harness.host.host import Host
from harness.machine.command import Device, MachineSpec
from harness.suite_fixtures import Launch, Refusal
from harness.testing import check_said, must_fail, skip

VIRTUAL = 8
"""Virtual functions of an igb."""


def machine(host: Host, *devices: Device) -> MachineSpec:
    """Return a machine with *devices* behind root ports that executes nothing."""
    ports = tuple(
        Device("pcie-root-port", f"rp{n}", "pcie.0", f"0x{8 + n:x}", {"chassis": n + 1})
        for n in range(2)
    )
    return MachineSpec(
        name="sriov",
        accel=host.accelerator.option,
        memory_mib=64,
        devices=(*ports, *devices),
        paused=True,
    )


NOT_PLUGGABLE = "Parameter 'driver' expects a pluggable device type"


@pytest.mark.rule("SRV-21")
def test_a_virtual_function_is_not_made_by_hand(host: Host, refusal: Refusal) -> None:
    """``-device igbvf`` is refused: the physical function makes its virtual ones."""
    check_said(refusal(machine(host, Device("igbvf", "vf", "rp0", "0"))), NOT_PLUGGABLE)


@pytest.mark.full
@pytest.mark.negative_control("SRV-21")
def test_an_unknown_device_is_noticed(host: Host, refusal: Refusal) -> None:
    """A driver that QEMU does not know at all is refused with other words."""
    said = refusal(machine(host, Device("igbvf2", "vf", "rp0", "0")))

    with must_fail():
        check_said(said, NOT_PLUGGABLE)


def address_spaces(launch: Launch, spec: MachineSpec, name: str) -> int:
    """Return how many address spaces of that name the machine has."""
    spaces = [space for view in launch(spec).memory_map() for space in view.spaces]
    return sum(space.name == name for space in spaces)


def check_there_from_the_start(host: Host, count: int) -> None:
    """All of them are there since 10.0, none before."""
    assert count == (VIRTUAL if host.qemu.version.has(10, 0) else 0), count


@pytest.mark.rule("SRV-22")
def test_virtual_functions_exist_from_the_start(host: Host, launch: Launch) -> None:
    """Since QEMU 10.0 an igb has its eight virtual functions before anybody enables them."""
    spec = machine(host, Device("igb", "igb", "rp0", "0", {"romfile": ""}))

    check_there_from_the_start(host, address_spaces(launch, spec, "igbvf"))


@pytest.mark.full
@pytest.mark.negative_control("SRV-22")
def test_another_number_is_noticed(host: Host, launch: Launch) -> None:
    """Two such devices have twice as many."""
    nics = [Device("igb", f"igb{n}", f"rp{n}", "0", {"romfile": ""}) for n in range(2)]
    spec = replace(machine(host, *nics), name="two")
    count = address_spaces(launch, spec, "igbvf") or VIRTUAL  # before 10.0: one too many

    with must_fail():
        check_there_from_the_start(host, count)


@dataclass(frozen=True, slots=True)
class Unfit:
    """Properties of an nvme with SR-IOV of which one does not fit."""

    name: str
    change: Mapping[str, int]
    words: str


FITTING: Mapping[str, int] = {
    "sriov_max_vfs": 4, "sriov_vq_flexible": 8, "sriov_vi_flexible": 4,
    "max_ioqpairs": 10, "msix_qsize": 9,
}  # fmt: skip
"""The smallest that work (SRV-27)."""

UNFIT = [
    Unfit("none", {"sriov_vi_flexible": 0},
          "both sriov_vq_flexible and sriov_vi_flexible must be set for the use of SR-IOV"),
    Unfit("vq", {"sriov_vq_flexible": 7},
          "sriov_vq_flexible must be greater than or equal to 8 (sriov_max_vfs * 2)"),
    Unfit("vi", {"sriov_vi_flexible": 3},
          "sriov_vi_flexible must be greater than or equal to 4 (sriov_max_vfs)"),
    Unfit("queues", {"max_ioqpairs": 9},
          "(max_ioqpairs - sriov_vq_flexible) must be greater than or equal to 2"),
    Unfit("vectors", {"msix_qsize": 4},
          "(msix_qsize - sriov_vi_flexible) must be greater than or equal to 1"),
    Unfit("cmb", {"cmb_size_mb": 8}, "CMB is not supported with SR-IOV"),
]  # fmt: skip


def nvme(host: Host, properties: Mapping[str, int], *, subsystem: bool = True) -> MachineSpec:
    """Return a machine with such an nvme."""
    extra = {"subsys": "family"} if subsystem else {}
    parent = (Device("nvme-subsys", "family"),) if subsystem else ()
    return machine(
        host, *parent, Device("nvme", "disk", "rp0", "0", {"serial": "t", **extra, **properties})
    )


@pytest.mark.parametrize("unfit", UNFIT, ids=lambda unfit: unfit.name)
@pytest.mark.rule("SRV-27")
def test_numbers_that_do_not_fit_are_refused(host: Host, refusal: Refusal, unfit: Unfit) -> None:
    """Queues, vectors and virtual functions of an nvme must fit together."""
    check_said(refusal(nvme(host, {**FITTING, **unfit.change})), unfit.words)


@pytest.mark.full
@pytest.mark.parametrize("unfit", UNFIT, ids=lambda unfit: unfit.name)
@pytest.mark.negative_control("SRV-27")
def test_another_refusal_is_noticed(host: Host, refusal: Refusal, unfit: Unfit) -> None:
    """What is said of the missing subsystem is not what is said of the numbers."""
    said = refusal(nvme(host, {**FITTING, **unfit.change}, subsystem=False))

    with must_fail():
        check_said(said, unfit.words)


@pytest.mark.rule("SRV-27")
@pytest.mark.negative_control("SRV-26")
def test_numbers_that_fit_are_accepted(host: Host, launch: Launch) -> None:
    """The smallest numbers that fit start, and of them no subsystem is said to be missing."""
    started = launch(nvme(host, FITTING))

    assert started.qmp.execute("query-status")["status"] == "prelaunch"
    with must_fail():
        check_said(started.stderr(), NO_SUBSYSTEM)


NO_SUBSYSTEM = "subsystem is required for the use of SR-IOV"


@pytest.mark.rule("SRV-26")
def test_subsystem_is_required(host: Host, refusal: Refusal) -> None:
    """An nvme has virtual functions only as part of a subsystem."""
    check_said(refusal(nvme(host, FITTING, subsystem=False)), NO_SUBSYSTEM)


@dataclass(frozen=True, slots=True)
class Misplaced:
    """Functions of a virtio family, by function number, that QEMU must refuse."""

    name: str
    virtual: tuple[int, ...]
    physical: int
    words: str
    bus: str = "rp0"
    """Of the virtual functions."""
    head: str = ""
    """Bus of the physical one, if it is another."""


MISPLACED = [
    Misplaced("below", (1,), 2, "a VF function number is less than the PF function number"),
    Misplaced("stride", (1, 2, 4), 0, "inconsistent SR-IOV stride"),
    Misplaced("conventional-vf", (1,), 0, "PCI Express is required for SR-IOV VF", "bridge"),
    Misplaced("conventional-pf", (1,), 0, "attaching user-created SR-IOV VF unsupported",
              head="bridge"),
]  # fmt: skip


SLOTS = {"rp0": "0", "bridge": "1"}


def virtio_family(host: Host, family: Misplaced) -> MachineSpec:
    """Return a machine with a virtio-net family; the virtual functions are named first."""
    if not host.qemu.features.has_property("virtio-net-pci", "sriov-pf"):
        skip("this QEMU has no virtio-net-pci with sriov-pf", enabled_by="QEMU 10.1 or later")
    bridge = Device("pcie-pci-bridge", "bridge", "rp1", "0")
    virtual = [
        Device("virtio-net-pci", f"vf{n}", family.bus, f"{SLOTS[family.bus]}.{n}",
               {"romfile": "", "sriov-pf": "pf"})
        for n in family.virtual
    ]  # fmt: skip
    bus = family.head or family.bus
    head = Device("virtio-net-pci", "pf", bus, f"{SLOTS[bus]}.{family.physical}", {"romfile": ""})
    return machine(host, bridge, *virtual, head)


PLACED = Misplaced("placed", (1, 2), 0, "")


@pytest.mark.full
@pytest.mark.parametrize("misplaced", MISPLACED, ids=lambda misplaced: misplaced.name)
@pytest.mark.rule("SRV-29")
def test_misplaced_virtio_functions_are_refused(
    host: Host, refusal: Refusal, misplaced: Misplaced
) -> None:
    """Virtual functions of a virtio family must lie behind their physical one, evenly."""
    check_said(refusal(virtio_family(host, misplaced)), misplaced.words)


@pytest.mark.full
@pytest.mark.parametrize("misplaced", MISPLACED, ids=lambda misplaced: misplaced.name)
@pytest.mark.negative_control("SRV-29")
def test_well_placed_virtio_functions_are_noticed(
    host: Host, launch: Launch, misplaced: Misplaced
) -> None:
    """Where they do, nothing is said against them."""
    said = launch(virtio_family(host, PLACED)).stderr()

    with must_fail():
        check_said(said, misplaced.words)

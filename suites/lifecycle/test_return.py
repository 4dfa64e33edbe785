"""A function comes to vfio-pci and goes back to its driver; what a machine may take, and when."""

from collections.abc import Iterator

import pytest

from harness.errors import CommandFailed
from harness.guest.block import BlockDevice
from harness.host.host import Host
from harness.lab.hosts import DISK_SEED
from harness.model.pci import PciFunction
from harness.suite_fixtures import Attach, Free
from harness.testing import must_fail
from suites.lifecycle.conftest import check_any

BLOCK = 64 * 1024


@pytest.fixture
def at_home(host: Host, free: Free) -> Iterator[PciFunction]:
    """The nvme, with the host's own driver; with vfio-pci again afterwards."""
    function = free("nvme")
    host.load_driver("nvme")
    with host.bound(function.bdf, "nvme"):
        yield host.function(function.bdf)


def check_driver(host: Host, function: PciFunction, driver: str) -> None:
    """The driver has the function."""
    assert host.function(function.bdf).driver == driver


@pytest.mark.rule("LIF-29")
def test_override_gives_a_function_to_vfio(host: Host, free: Free) -> None:
    """vfio-pci takes a function whose driver_override names it."""
    check_driver(host, free("nvme"), "vfio-pci")


@pytest.mark.rule("LIF-30")
@pytest.mark.negative_control("LIF-29")
def test_function_goes_back_to_its_driver(host: Host, at_home: PciFunction) -> None:
    """After the machine has ended the driver of the host takes the function again."""
    check_driver(host, at_home, "nvme")
    with must_fail():
        check_driver(host, at_home, "vfio-pci")


def check_works(host: Host, seed: int) -> None:
    """The host reads the pattern of *seed* from the disk."""
    assert BlockDevice(host, "/dev/nvme0n1").holds(seed, offset=0, length=BLOCK)


@pytest.mark.rule("LIF-30")
@pytest.mark.negative_control("LIF-30")
def test_function_works_for_the_host_again(host: Host, at_home: PciFunction) -> None:
    """After that the host reads from the disk what the lab put there, and nothing else."""
    check_works(host, DISK_SEED)
    with must_fail():
        check_works(host, DISK_SEED + 1)


def words_for_no_node(host: Host, group: int | None) -> str:
    """Return what QEMU says of a group node that is not there."""
    head = "Could not open" if host.qemu.version.has(9, 1) else "failed to open"
    quote = "'" if host.qemu.version.has(9, 1) else ""
    return f"{head} {quote}/dev/vfio/{group}{quote}: No such file or directory"


@pytest.mark.rule("LIF-04")
def test_a_function_without_vfio_is_refused(
    host: Host, at_home: PciFunction, attach: Attach
) -> None:
    """A function that vfio-pci does not have has no group node, and QEMU says so."""
    check_any(attach(host, at_home.bdf), words_for_no_node(host, at_home.iommu_group))


@pytest.mark.full
@pytest.mark.negative_control("LIF-04")
def test_a_function_with_vfio_is_noticed(host: Host, free: Free, attach: Attach) -> None:
    """A function that vfio-pci has is not refused."""
    function = free("nvme")

    said = attach(host, function.bdf)

    with must_fail():
        check_any(said, words_for_no_node(host, function.iommu_group))


METHODS = {"device_specific", "acpi", "flr", "af_flr", "pm", "bus", "cxl_bus"}


def check_methods(methods: set[str]) -> None:
    """There are methods, and no others than Linux has."""
    assert methods and methods <= METHODS, methods


@pytest.mark.parametrize("name", ["nvme", "e1000e", "igb"])
@pytest.mark.rule("RST-04")
def test_reset_methods_are_those_known(host: Host, free: Free, name: str) -> None:
    """reset_method lists a subset of the methods that Linux has."""
    check_methods(set(host.reset_methods(free(name).bdf)))


@pytest.mark.negative_control("RST-04")
@pytest.mark.parametrize("methods", [set(), {"flr", "magic"}], ids=["none", "unknown"])
def test_other_methods_are_noticed(methods: set[str]) -> None:
    """No method, and one that Linux does not have, fail the check."""
    with must_fail():
        check_methods(methods)


def resets(host: Host, function: PciFunction) -> bool:
    """Say whether writing to its reset file works."""
    try:
        host.reset(function.bdf)
    except CommandFailed:
        return False
    return True


def check_reset(host: Host, function: PciFunction) -> None:
    """The function can be reset, and that is written in its directory."""
    assert host.exists(f"/sys/bus/pci/devices/{function.bdf}/reset")
    assert resets(host, function)


@pytest.mark.parametrize("name", ["nvme", "e1000e", "igb"])
@pytest.mark.rule("RST-05")
def test_reset_through_sysfs_works(host: Host, free: Free, name: str) -> None:
    """Writing 1 to the reset file of a function that has a reset method succeeds."""
    check_reset(host, free(name))


def check_no_reset(host: Host, function: PciFunction) -> None:
    """The function has neither reset method nor reset file."""
    assert host.reset_methods(function.bdf) == ()
    assert not host.exists(f"/sys/bus/pci/devices/{function.bdf}/reset")


@pytest.mark.rule("RST-06")
@pytest.mark.negative_control("RST-05")
def test_edu_has_no_reset(host: Host, free: Free) -> None:
    """An edu on the root bus has no reset method and no reset file."""
    edu = free("edu")

    check_no_reset(host, edu)
    with must_fail():
        check_reset(host, edu)


@pytest.mark.negative_control("RST-06")
def test_a_function_with_a_reset_is_noticed(host: Host, free: Free) -> None:
    """An nvme, which has one, fails the check."""
    with must_fail():
        check_no_reset(host, free("nvme"))


PM = 0x01
FLR = 1 << 28
"""Function level reset: device capabilities (PCIe 6.0, 7.5.3.3)."""


def check_flr(host: Host, function: PciFunction) -> None:
    """Its capabilities say function level reset, and Linux uses that first."""
    offset = next(c.offset for c in function.capabilities if c.id == 0x10 and not c.extended)
    assert int.from_bytes(function.config[offset + 4 : offset + 8], "little") & FLR
    assert host.reset_methods(function.bdf)[:1] == ("flr",)


@pytest.mark.parametrize("name", ["nvme", "igb"])
@pytest.mark.rule("RST-07")
def test_function_level_reset(host: Host, free: Free, name: str) -> None:
    """nvme and igb have function level reset and power management."""
    function = free(name)

    assert function.has_capability(PM)
    check_flr(host, function)


@pytest.mark.negative_control("RST-07")
def test_a_function_without_flr_is_noticed(host: Host, free: Free) -> None:
    """An e1000e has none."""
    with must_fail():
        check_flr(host, free("e1000e"))

"""Functions that no usual host has: twins in a slot, integrated graphics, many in one."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.errors import CommandFailed
from harness.guest.sriov import Sriov
from harness.host.host import Host
from harness.lab.bare import Bare
from harness.lab.odd_host import OddHost
from harness.model.pci import Bdf, PciFunction
from harness.suite_fixtures import Attempt, RefusedCommand
from harness.testing import check_said, must_fail, skip
from suites.lifecycle.conftest import StartOdd, on_root_bus, spec_with

pytestmark = [
    pytest.mark.full,
    pytest.mark.label("device modelled (vfio-user), host kernel and QEMU real"),
]


# -- two functions that are reset together ----------------------------------------------------


@pytest.fixture
def twins(odd: OddHost) -> Iterator[tuple[PciFunction, PciFunction]]:
    """Both, in the hands of vfio-pci, each in a group of its own."""
    left, right = odd.twins
    assert left.iommu_group != right.iommu_group, "they are in one group"
    with odd.host.bound(left.bdf), odd.host.bound(right.bdf):
        yield left, right


def after_reset(machine: Bare) -> str:
    """Reset the machine; return all that QEMU has said."""
    mark = machine.machine.qmp.mark()
    machine.machine.qmp.execute("system_reset")
    machine.machine.qmp.wait_event("RESET", timeout=30, since=mark)
    machine.machine.check()
    return machine.machine.stderr()


def check_depends(said: str, function: PciFunction, other: PciFunction) -> None:
    """QEMU says that it does not reset the function, and on which group that depends."""
    words = f"depends on group {other.iommu_group} which is not owned."
    check_said(said, f"vfio: Cannot reset device {function.bdf}, {words}")


@pytest.mark.rule("RST-03")
def test_what_would_reset_others_is_not_reset(
    twins: tuple[PciFunction, PciFunction], assign: StartOdd
) -> None:
    """A function that can only be reset with another, which somebody else has, is not reset."""
    left, right = twins

    said = after_reset(assign(on_root_bus("left", 0x10, left)))

    check_depends(said, left, right)


@pytest.mark.negative_control("RST-03")
def test_a_machine_that_has_both_is_noticed(
    twins: tuple[PciFunction, PciFunction], assign: StartOdd
) -> None:
    """A machine that has both resets both."""
    left, right = twins
    machine = assign(on_root_bus("left", 0x10, left), on_root_bus("right", 0x11, right))

    said = after_reset(machine)

    with must_fail():
        check_depends(said, left, right)


# -- integrated graphics ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """An option of integrated graphics, and what is said against it."""

    name: str
    at_start: str
    late: str


OPREGION = Option(
    "x-igd-opregion",
    "Device does not supports IGD OpRegion feature",
    "IGD OpRegion is not supported on hotplugged device",
)
LPC = Option(
    "x-igd-lpc",
    "Cannot create LPC bridge due to existing device at 1f.0",
    "IGD LPC is not supported on hotplugged device",
)
OFF: dict[str, str | bool] = {"x-igd-opregion": False, "x-igd-lpc": False}


@pytest.fixture
def graphics(odd: OddHost) -> Iterator[PciFunction]:
    """The graphics, in the hands of vfio-pci."""
    if not odd.host.qemu.version.has(10, 0):
        skip("this QEMU has no x-igd-lpc", enabled_by="QEMU 10.0 or later")
    function = odd.graphics
    with odd.host.bound(function.bdf):
        yield function


@pytest.fixture
def obliged(odd: OddHost, graphics: PciFunction) -> PciFunction:
    """The graphics, for a QEMU that lets these options decide what is wanted of it."""
    if odd.host.qemu.version.has(10, 1):
        skip(
            "this QEMU wants nothing of graphics without an OpRegion",
            enabled_by="QEMU 10.0 (--qemu debian:trixie)",
        )
    return graphics


@pytest.mark.parametrize("option", [OPREGION, LPC], ids=lambda option: option.name)
@pytest.mark.rule("LIF-34")
def test_an_unsuitable_device_is_refused(
    odd: OddHost, obliged: PciFunction, attempt: Attempt, option: Option
) -> None:
    """What an option wants, and device or machine do not have, is named at the start."""
    device = on_root_bus("igd", 0x10, obliged, **{**OFF, option.name: True})

    check_said(attempt(odd.host, spec_with(odd.host, device)), option.at_start)


@pytest.mark.parametrize("option", [OPREGION, LPC], ids=lambda option: option.name)
@pytest.mark.rule("LIF-34")
def test_a_late_device_is_refused(
    obliged: PciFunction, assign: StartOdd, refused_command: RefusedCommand, option: Option
) -> None:
    """What only a device that is there from the start can have is refused to a late one."""
    error = refused_command(
        assign().machine, "device_add", driver="vfio-pci", id="igd", bus="rp0",
        host=str(obliged.bdf), **{**OFF, option.name: True},
    )  # fmt: skip

    check_said(error.description, option.late)


@pytest.fixture
def unobliged(odd: OddHost, graphics: PciFunction) -> PciFunction:
    """The graphics, for a QEMU that knows them by their OpRegion, which these have not."""
    if not odd.host.qemu.version.has(10, 1):
        skip(
            "this QEMU does not ignore these options",
            enabled_by="QEMU 10.1 or later (--qemu debian:trixie-backports)",
        )
    return graphics


def check_accepted(said: str) -> None:
    """QEMU said nothing against the machine."""
    assert not said, f"the machine was refused: {said}"


@pytest.mark.parametrize("option", [OPREGION, LPC], ids=lambda option: option.name)
@pytest.mark.rule("LIF-34")
def test_options_of_another_device_are_ignored(
    odd: OddHost, unobliged: PciFunction, attempt: Attempt, option: Option
) -> None:
    """Since QEMU 10.1 graphics without an OpRegion are none of these, and all is accepted."""
    device = on_root_bus("igd", 0x10, unobliged, **{**OFF, option.name: True})

    check_accepted(attempt(odd.host, spec_with(odd.host, device)))


@pytest.mark.parametrize("option", [OPREGION, LPC], ids=lambda option: option.name)
@pytest.mark.negative_control("LIF-34")
def test_an_option_that_is_not_ignored_is_noticed(
    odd: OddHost, unobliged: PciFunction, attempt: Attempt, option: Option
) -> None:
    """An option whose value is no answer is refused of any device."""
    device = on_root_bus("igd", 0x10, unobliged, **{**OFF, option.name: "perhaps"})

    said = attempt(odd.host, spec_with(odd.host, device))

    check_said(said, option.name)
    with must_fail():
        check_accepted(said)


@pytest.mark.parametrize("option", [OPREGION, LPC], ids=lambda option: option.name)
@pytest.mark.negative_control("LIF-34")
def test_graphics_without_options_are_noticed(
    odd: OddHost, graphics: PciFunction, attempt: Attempt, option: Option
) -> None:
    """Without these options nothing is refused."""
    said = attempt(odd.host, spec_with(odd.host, on_root_bus("igd", 0x10, graphics, **OFF)))

    assert not said, said
    with must_fail():
        check_said(said, option.at_start)
    with must_fail():
        check_said(said, option.late)


# -- a function with virtual ones -------------------------------------------------------------

VFIO = "/sys/bus/pci/drivers/vfio-pci"
BUSY = "Device or resource busy"
ENABLED = "Cannot bind to PF with SR-IOV enabled"


@pytest.fixture
def family(odd: OddHost) -> Iterator[Sriov]:
    """The nvme, with a driver that makes virtual functions, and leaves them when it goes."""
    odd.host.load_driver("nvme")
    odd.host.load_driver("vfio-pci")
    with odd.host.bound(odd.many.bdf, "nvme"):
        yield Sriov(odd.host, odd.many.bdf)


def taken(host: Host, bdf: Bdf) -> tuple[str, str]:
    """Give the function to vfio-pci; return what was said against it, and what was logged.

    The driver has it again afterwards.
    """
    mark = host.kernel_log_mark()
    override, driver = f"/sys/bus/pci/devices/{bdf}/driver_override", "/sys/bus/pci/drivers/nvme"
    host.run(f"echo {bdf} > {driver}/unbind && echo vfio-pci > {override}")
    try:
        host.write_text(f"{VFIO}/bind", str(bdf))
        said = ""
    except CommandFailed as refused:
        said = refused.stderr
    log = host.kernel_log_since(mark)
    host.run(f"[ ! -e {VFIO}/{bdf} ] || echo {bdf} > {VFIO}/unbind")
    host.run(f"echo nvme > {override} && echo {bdf} > {driver}/bind")
    return said, log


def check_not_taken(answer: tuple[str, str]) -> None:
    """The function is busy, and the log says why."""
    said, log = answer
    check_said(said, BUSY)
    check_said(log, ENABLED)


@pytest.mark.rule("LIF-27")
def test_a_function_with_virtual_ones_is_not_taken(odd: OddHost, family: Sriov) -> None:
    """vfio-pci refuses a physical function whose virtual ones are there already."""
    with family.enabled(1):
        check_not_taken(taken(odd.host, family.bdf))


@pytest.mark.negative_control("LIF-27")
def test_one_without_virtual_functions_is_noticed(odd: OddHost, family: Sriov) -> None:
    """Without them it takes it."""
    with must_fail():
        check_not_taken(taken(odd.host, family.bdf))

"""vfio below intel-iommu: what a set-up refuses to those who follow its mappings, and the order.

Translation is turned on over qtest in machines that execute nothing, so no guest has to boot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.device.device import Device as PythonDevice
from harness.device.server import serve
from harness.device.spec import BarSpec
from harness.guest.local import LocalTransport
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import INTEL_IOMMU
from harness.lab.nested import prepare
from harness.lab.parts import Parts
from harness.lab.vfio_user import DRIVER, parts_with_devices, shared_memory
from harness.lab.vtd import properties_of
from harness.machine.bare_pci import connect, with_qtest
from harness.machine.command import Device, MachineSpec
from harness.machine.launch import Launch as LaunchParts
from harness.machine.machine import Machine
from harness.machine.outcome import Outcome, outcome_of_hot_add, outcome_of_launch
from harness.machine.vtd import enable_translation, traced, vtd_spec
from harness.model.pci import BarKind, PciFunction, PciId
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.notifiers import FIRST_STAGE, NO_CACHING_MODE, NO_SNOOP_CONTROL
from harness.parse.trace_log import TraceEvent
from harness.suite_fixtures import AnotherHost, Launch
from harness.testing import must_fail, skip
from suites.intel_iommu.conftest import OutcomeOf, skip_lacking
from suites.intel_iommu.test_assignment import assigned
from suites.intel_iommu.test_refusals import check_outcome

pytestmark = pytest.mark.full

CACHING = VtdConfig.of(caching_mode=True)
FOLLOWS = "vfio_listener_region_add_iommu"
"""vfio begins to follow the mappings of a region that translates."""


def spec_of(host: Host, config: VtdConfig) -> MachineSpec:
    """Return a paused machine with *config* that can be written over qtest."""
    properties = properties_of(host)
    skip_lacking(host, config.lacking(properties))
    spec = vtd_spec(config, accel=host.accelerator.option, properties=properties)
    return with_qtest(spec).saying("-trace", FOLLOWS)


def translate(machine: Machine) -> None:
    """Turn translation on."""
    with contextlib.closing(connect(machine)) as qtest:
        enable_translation(qtest)


def add_while_translating(machine: Machine, device: Device) -> Outcome:
    """Turn translation on, then hot-add *device*."""
    translate(machine)
    return outcome_of_hot_add(machine, device)


# -- notifiers --------------------------------------------------------------------------------


@pytest.mark.rule("VTD-22")
def test_snoop_control_and_assignment(host: Host, launch: Launch, spare: PciFunction) -> None:
    """A unit with snoop control refuses a function that is hot-added while it translates."""
    machine = launch(spec_of(host, CACHING.having(snoop_control=True)))

    said = add_while_translating(machine, assigned(spare, "port2", "0"))

    check_outcome(
        said, f"memory listener initialization failed: Region vtd-00.0-dmar: {NO_SNOOP_CONTROL}"
    )


@pytest.mark.negative_control("VTD-22")
def test_a_unit_without_snoop_control_is_noticed(
    host: Host, launch: Launch, spare: PciFunction
) -> None:
    """Without snoop control the function is taken, and the check fails."""
    machine = launch(spec_of(host, CACHING))

    said = add_while_translating(machine, assigned(spare, "port2", "0"))

    with must_fail():
        check_outcome(said, NO_SNOOP_CONTROL)


class Page(PythonDevice):
    """A device with a page of memory."""

    id = PciId(0x1234, 0x5AE0)
    bars = (BarSpec(0, BarKind.MEM64, 0x1000, direct=True),)


@pytest.fixture
def local_add(
    parts: Parts, evidence: Path, request: pytest.FixtureRequest
) -> Callable[[VtdConfig], Outcome]:
    """Hot-add a device in Python on this computer, while the unit translates.

    vfio-pci is refused without caching mode before it can follow anything (VTD-17 to VTD-19);
    vfio-user-pci comes as far as the notifier.
    """
    build = parts_with_devices(parts).l0_qemu
    item: pytest.Item = request.node
    item.user_properties.append(("subject.QEMU under test", f"{build.label} {build.version}"))

    def add(config: VtdConfig) -> Outcome:
        properties = build.features.device_properties("intel-iommu")
        spec = shared_memory(vtd_spec(config, accel="tcg", properties=properties))
        place = LaunchParts(LocalTransport(), build, evidence)
        with serve(Page()) as served, Machine.launch(with_qtest(spec), place) as machine:
            device = Device(DRIVER, "page", "port2", "0", {"rombar": 0}, str(served.socket))
            return add_while_translating(machine, device)

    return add


def check_no_caching_mode(said: Outcome) -> None:
    """The listener of the hot-added device fails, and says that caching mode is missing.

    Nobody has given the port a bus number: the device is called 00.00.0.
    """
    check_outcome(
        said,
        "memory listener initialization failed: Region vtd-00.0-dmar: device 00.00.0"
        f" {NO_CACHING_MODE}: Operation not supported",
    )


@pytest.mark.label("device modelled (vfio-user), QEMU real")
@pytest.mark.rule("VTD-20")
def test_who_hears_of_mappings_needs_caching_mode(
    local_add: Callable[[VtdConfig], Outcome],
) -> None:
    """Without caching mode a unit that translates refuses whoever must hear of new mappings."""
    check_no_caching_mode(local_add(VtdConfig.of(caching_mode=False)))


@pytest.mark.label("device modelled (vfio-user), QEMU real")
@pytest.mark.negative_control("VTD-20")
def test_caching_mode_is_noticed(local_add: Callable[[VtdConfig], Outcome]) -> None:
    """With caching mode the device is taken, and the check fails."""
    said = local_add(CACHING)

    with must_fail():
        check_no_caching_mode(said)


# -- what the host's unit cannot do -----------------------------------------------------------


@pytest.mark.rule("VTD-24")
def test_first_stage_and_assignment(host: Host, outcome: OutcomeOf, spare: PciFunction) -> None:
    """A first stage wants of an assigned function what its host does not give by a group."""
    properties = properties_of(host)
    config = CACHING.having(scalable_mode=True, fsts=True)

    said = outcome(spec_of(host, config).adding(assigned(spare, "pcie.0", "0x10")))

    check_outcome(said, FIRST_STAGE.expected(host.qemu.version, properties))


@pytest.mark.negative_control("VTD-24")
def test_a_second_stage_is_noticed(host: Host, outcome: OutcomeOf, spare: PciFunction) -> None:
    """Scalable mode with a second stage takes the function, and the check fails."""
    config = CACHING.having(scalable_mode=True)

    said = outcome(spec_of(host, config).adding(assigned(spare, "pcie.0", "0x10")))

    with must_fail():
        check_outcome(said, FIRST_STAGE.expected(host.qemu.version, properties_of(host)))


@pytest.fixture(scope="module")
def narrow_host(virtual_host: VirtualHost, another_host: AnotherHost) -> Iterator[VirtualHost]:
    """A virtual host whose IOMMU has addresses of 39 bits."""
    with another_host("narrow-host", INTEL_IOMMU.having(aw_bits=39)) as opened:
        yield opened


def assign_on(host: VirtualHost, evidence: Path, *, aw_bits: int) -> Outcome:
    """Start a machine on *host* with addresses of *aw_bits* and its nvme assigned."""
    function = prepare(host, ["nvme"])["nvme"]
    spec = spec_of(host, CACHING.having(aw_bits=aw_bits))
    spec = spec.adding(assigned(function, "pcie.0", "0x10"))
    return outcome_of_launch(lambda: host.launch(spec, evidence=evidence))


def check_too_wide(said: Outcome) -> None:
    """QEMU refuses addresses that the host's IOMMU cannot translate."""
    check_outcome(said, "aw-bits 48 > host aw-bits 39")


@pytest.fixture
def compares(host: Host) -> None:
    """This QEMU compares its addresses with the host's."""
    if not host.qemu.version.has(9, 1):
        skip(
            f"QEMU {host.qemu.version} does not ask the host's IOMMU",
            enabled_by="QEMU 9.1 or later",
        )


@pytest.mark.rule("VTD-23")
def test_addresses_wider_than_the_hosts(
    compares: None, narrow_host: VirtualHost, evidence: Path
) -> None:
    """A unit with wider addresses than the host's IOMMU takes no assigned function."""
    check_too_wide(assign_on(narrow_host, evidence, aw_bits=48))


@pytest.mark.negative_control("VTD-23")
def test_addresses_of_the_hosts_width_are_noticed(
    compares: None, narrow_host: VirtualHost, evidence: Path
) -> None:
    """Addresses as wide as the host's are taken, and the check fails."""
    said = assign_on(narrow_host, evidence, aw_bits=39)

    with must_fail():
        check_too_wide(said)


# -- order on the command line ----------------------------------------------------------------


def late_iommu(spec: MachineSpec) -> MachineSpec:
    """Return *spec* with its IOMMU behind everything else."""
    return replace(spec, iommu=None).saying("-device", str(spec.iommu))


def follows(host: Host, launch: Launch, spec: MachineSpec) -> Sequence[TraceEvent]:
    """Turn translation on; return what vfio says when it begins to follow mappings."""
    machine = launch(spec)
    translate(machine)
    return [event for event in traced(machine) if event.name == FOLLOWS]


def check_followed(events: Sequence[TraceEvent]) -> None:
    """vfio follows the mappings of the function's own region."""
    assert any("vtd-10.0-dmar" in event.arguments for event in events), (
        "vfio goes on with all of memory: the function is not translated"
    )


@pytest.mark.rule("VTD-25")
def test_iommu_before_the_function(host: Host, launch: Launch, spare: PciFunction) -> None:
    """An assigned function behind intel-iommu on the command line is translated with the rest."""
    spec = spec_of(host, CACHING).adding(assigned(spare, "pcie.0", "0x10"))

    check_followed(follows(host, launch, spec))


@pytest.mark.negative_control("VTD-25")
def test_iommu_behind_the_function_is_noticed(
    host: Host, launch: Launch, spare: PciFunction
) -> None:
    """One before it is not, whatever the guest does: its DMA goes past the unit."""
    spec = late_iommu(spec_of(host, CACHING).adding(assigned(spare, "pcie.0", "0x10")))

    events = follows(host, launch, spec)

    with must_fail():
        check_followed(events)

"""Machines with devices in Python in them; each is made once and shared.

================  ==============================================================================
``cold``          a machine with firmware only, a device in it from the start
``guest_stage``   the small guest: no IOMMU; its devices are in `GUEST_SEATS`
``host_stage``    a virtual host with intel-iommu; its devices are in `HOST_SEATS`
``worker``        one of its devices, with vfio-pci and in no machine, and ``driver`` for it
``onward``        a nested guest in that host, with some of its devices (`ONWARD`) assigned
================  ==============================================================================

Their QEMU is the one under test if it has ``vfio-user-pci``, see `harness.lab.vfio_user`.
The QEMU of the nested guest is always the one under test.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.device.server import Served, serve
from harness.errors import HostError
from harness.guest.keys import RunKey
from harness.guest.local import LocalTransport
from harness.guest.vfio_driver import VfioDriver, drive
from harness.host.virtual import VirtualHost
from harness.lab.nested import Nested, guest_spec
from harness.lab.parts import Parts
from harness.lab.plugged import Plugged, Seat
from harness.lab.resident import LATE
from harness.lab.vfio_user import (
    DRIVER,
    Stage,
    assign,
    open_device_guest,
    open_device_host,
    parts_with_devices,
    shared_memory,
)
from harness.machine.command import Device, MachineSpec
from harness.machine.launch import Launch
from harness.machine.machine import Machine
from harness.model.vfio.mapping import VfioOptions
from harness.parse.trace_log import TraceEvent
from harness.suite_fixtures import WENT_WRONG
from harness.testing import skip
from suites.vfio_user.devices import Closed, Open, QatPf, QatVf, Shades, WithFlr

ONWARD: Mapping[str, VfioOptions] = {
    "shades": VfioOptions(),
    "hidden": VfioOptions(no_mmap=True),
    "vf": VfioOptions(),
}
"""Devices of the host that its guest gets, and how. Nobody else binds, drives or resets them."""

LABEL = "device modelled (vfio-user), QEMU real"

SharedEvidence = Callable[[str], Path]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Say on every row of this area what is modelled."""
    item.add_marker(pytest.mark.label(LABEL))


@dataclass
class Prepared:
    """A stage, and what was seen while it was set up."""

    stage: Stage
    events: tuple[TraceEvent, ...] = ()
    """``vfio_intx_enable`` of QEMU while the devices were plugged."""
    denied: str = ""
    """What the host's kernel logged when vfio-pci was to take the QAT VF, before it might."""

    def __getitem__(self, name: str) -> Plugged:
        return self.stage.plugged[name]


@dataclass(frozen=True)
class Cold:
    """A machine with firmware only, and the device that was there from the start."""

    machine: Machine
    served: Served

    def messages_of(self, bar: int, offset: int, words: int) -> int:
        """Let the monitor read *words* of a BAR (``xp``); return how many messages that made."""
        address = self.machine.bar_addresses("shades")[bar] + offset
        before = self.served.accesses.count(bar, operation="read")
        self.machine.qmp.hmp(f"xp /{words}wx {address:#x}")
        return self.served.accesses.count(bar, operation="read") - before


@pytest.fixture(scope="package")
def device_parts(lab_parts: Parts) -> Parts:
    """The parts of this run, with a QEMU that has vfio-user-pci for the machines here."""
    return parts_with_devices(lab_parts)


@pytest.fixture(autouse=True)
def device_qemu(device_parts: Parts, request: pytest.FixtureRequest) -> None:
    """Name the QEMU that speaks to the device on the row of the test: it is what is judged.

    Where a device is assigned onward, the QEMU under test is the nested one.
    """
    build = device_parts.l0_qemu
    subject = "lab QEMU" if "onward" in request.fixturenames else "QEMU under test"
    item: pytest.Item = request.node
    item.user_properties.append((f"subject.{subject}", f"{build.label} {build.version}"))


@pytest.fixture(scope="package")
def cold(device_parts: Parts, shared_evidence: SharedEvidence) -> Iterator[Cold]:
    """A machine without an operating system, its firmware done, with `Shades` in it."""
    launch = Launch(
        LocalTransport(), device_parts.l0_qemu, shared_evidence("device-firmware"), level="L1"
    )
    with serve(Shades()) as served:
        device = Device(DRIVER, "shades", "pcie.0", "0x5", {"rombar": 0}, str(served.socket))
        spec = shared_memory(MachineSpec("firmware", memory_mib=64, devices=(device,)))
        with Machine.launch(spec, launch) as machine:
            machine.wait_until_mapped("shades")
            yield Cold(machine, served)


@pytest.fixture(scope="package")
def guest_stage(
    device_parts: Parts, run_key: RunKey, shared_evidence: SharedEvidence
) -> Iterator[Prepared]:
    """The small guest with its devices."""
    place = shared_evidence("device-guest")
    guest = open_device_guest(device_parts, key=run_key, evidence=place)
    with contextlib.closing(Stage(guest, device_parts.l0_qemu.version)) as stage:
        with guest.machine.tracing("vfio_intx_enable") as window:
            stage.plug(
                Seat("shades", Shades(), "rp0"),
                Seat("closed", Closed(), "rp1"),
                Seat("open", Open(), "rp2"),
            )
        yield Prepared(stage, window.events)


@pytest.fixture(scope="package")
def host_stage(
    device_parts: Parts, run_key: RunKey, shared_evidence: SharedEvidence
) -> Iterator[Prepared]:
    """The virtual host with its devices; vfio-pci takes what its denylist names."""
    place = shared_evidence("device-host")
    nested = guest_spec(device_parts.guest_files(run_key), append=LATE)
    host = open_device_host(device_parts, key=run_key, evidence=place, nested=nested)
    with contextlib.closing(Stage(host, device_parts.l0_qemu.version)) as stage:
        stage.plug(
            Seat("shades", Shades(), "rp0"),
            Seat("hidden", Shades(), "rp1"),
            Seat("vf", QatVf(), "rp2"),
            Seat("sibling", QatVf(), "rp3", "0.1"),
            Seat("pf", QatPf(), "rp3", "0.0"),
            Seat("worker", Shades(), "rp4"),
            Seat("flr", WithFlr(), "rp5"),
            Seat("solo", QatVf(), "rp7"),
        )
        mark = host.kernel_log_mark()
        with contextlib.suppress(HostError):
            host.put_back(host.bind(stage.plugged["solo"].bdf, "vfio-pci"))
        denied = host.kernel_log_since(mark)
        host.run("rmmod vfio_pci && modprobe vfio_pci disable_denylist=1")
        yield Prepared(stage, denied=denied)


@pytest.fixture(scope="package")
def worker(host_stage: Prepared) -> Iterator[Plugged]:
    """A device of the host that is with vfio-pci, and in no machine."""
    found = host_stage["worker"]
    with host_stage.stage.host.bound(found.bdf):
        yield found


@pytest.fixture
def driver(worker: Plugged, host_stage: Prepared) -> Iterator[VfioDriver]:
    """A driver in user space of the host for that device."""
    with drive(host_stage.stage.host, worker.bdf) as found:
        yield found


class Onward:
    """Keeps a nested guest with devices assigned; a new one where the last is spoilt."""

    def __init__(self, stage: Stage, make_evidence: SharedEvidence) -> None:
        self._stage = stage
        self._make_evidence = make_evidence
        self._started = 0
        self._here: Nested | None = None

    def get(self) -> Nested:
        """Return it, made if it is not there."""
        if self._here is None:
            self._started += 1
            place = self._make_evidence(f"device-nested-{self._started}")
            self._here = assign(self._stage, ONWARD, evidence=place)
        return self._here

    def end(self) -> None:
        """End it, if it is there."""
        if self._here is not None:
            ended, self._here = self._here, None
            ended.close()


@pytest.fixture(scope="package")
def keeper(host_stage: Prepared, shared_evidence: SharedEvidence) -> Iterator[Onward]:
    """Keeper of the nested guest."""
    found = Onward(host_stage.stage, shared_evidence)
    yield found
    found.end()


@pytest.fixture
def onward(keeper: Onward, request: pytest.FixtureRequest) -> Iterator[Nested]:
    """The guest in that host, with devices of the host assigned.

    A test that does not pass may have spoilt it: then the next one gets a new guest.
    """
    yield keeper.get()
    if request.node.stash.get(WENT_WRONG, False):
        keeper.end()


@pytest.fixture
def trapping_guest(onward: Nested) -> Nested:
    """That guest, where it may read what traps."""
    host = onward.host
    assert isinstance(host, VirtualHost)
    if host.kernel.has(6, 14) and host.machine.spec.accel.startswith("tcg"):
        skip(
            f"Linux {host.kernel} on emulated SVM stops guests that trap"
            " (docs/findings/kvm-internal-error-under-emulated-svm.md)",
            enabled_by="--kernel debian:trixie, or a computer with KVM,",
        )
    return onward

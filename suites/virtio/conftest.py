"""Virtio devices behind an IOMMU: vhost ones that a bare driver starts, and those of a guest.

===============  ===============================================================================
``ask_twice``    starts a vhost device below an IOMMU that maps, and lets it answer two packets
``start_vhost``  starts a vhost device below some IOMMU and says what came of it
``translating``  a booted guest with intel-iommu and virtio devices of every sort (shared)
===============  ===============================================================================
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import root_ports
from harness.lab.nested import Nested
from harness.lab.resident import Resident
from harness.lab.vtd import properties_of
from harness.machine.bare_pci import Q35, RESTING_FIRMWARE, BarePci, connect, with_qtest
from harness.machine.bare_virtio import (
    ACCESS_PLATFORM,
    RING_PAGES,
    RINGS,
    VERSION_1,
    BareVirtio,
    Started,
)
from harness.machine.bare_vtd import BareVtd
from harness.machine.command import Device, MachineSpec
from harness.machine.machine import Machine
from harness.machine.outcome import Outcome, outcome_of_doing
from harness.machine.vtd import enable_translation, traced
from harness.model.pci import Bdf
from harness.model.vtd.properties import arguments
from harness.parse.trace_log import TraceEvent
from harness.suite_fixtures import Launch
from harness.testing import skip
from harness.wait import wait_until
from suites.virtio.dialogue import VSOCK_TALK, Dialogue

PORT, VSOCK = Bdf(0, 0, 8, 0), Bdf(0, 1, 0, 0)
FAULT = "vtd_dmar_fault"
_FIRMWARE = "/run/trapline-rest.bin"


@dataclass(frozen=True, slots=True)
class VhostStart:
    """What came of starting a vhost device.

    :param started: None: QEMU ended.
    :param faults: that intel-iommu reported meanwhile; its tables are empty.
    """

    outcome: Outcome
    started: Started | None = None
    faults: tuple[TraceEvent, ...] = ()


class StartVhost(Protocol):
    """Starts a vhost device; see `start_vhost`."""

    def __call__(self, iommu: Device, *, ats: bool = False, platform: bool = True) -> VhostStart:
        """Say what came of it.

        :param ats: the driver enables ATS.
        :param platform: ``iommu_platform=on``.
        """


@pytest.fixture
def vhost_host(host: Host) -> Host:
    """The host, able to run vhost-vsock."""
    return able(host, VSOCK_TALK)


def able(host: Host, talk: Dialogue) -> Host:
    """Return *host* with what *talk* needs; skips where it has not."""
    if isinstance(host, VirtualHost):
        host.run(f"modprobe -a {' '.join(talk.modules)}", check=False)
    elif talk.prepare:
        skip(f"makes a network interface on the host for {talk.node}", enabled_by="--host virtual")
    if not host.exists(talk.node):
        skip(
            f"{host.name} has no {talk.node}",
            enabled_by=f"a kernel with {' and '.join(talk.modules)}",
        )
    host.transport.write(_FIRMWARE, RESTING_FIRMWARE)
    return host


def vhost_spec(host: Host, iommu: Device, device: Device) -> MachineSpec:
    """Return a machine with a vhost device that does nothing else."""
    return MachineSpec(
        "vhost",
        accel=host.accelerator.option,
        machine_options={"kernel-irqchip": "split"},
        memory_mib=16,
        iommu=iommu,
        devices=(*root_ports(1), device),
        paused=True,
        extra=("-bios", _FIRMWARE),
    )


@pytest.fixture
def start_vhost(vhost_host: Host, launch: Launch, apart: Apart) -> StartVhost:
    """Start a vhost device in a machine that does nothing else, translation turned on."""

    def start(iommu: Device, *, ats: bool = False, platform: bool = True) -> VhostStart:
        talk = apart(VSOCK_TALK)
        spec = vhost_spec(vhost_host, iommu, talk.device(platform=platform))
        machine = launch(with_qtest(spec.saying("-trace", FAULT)))
        came: list[Started] = []
        with contextlib.closing(connect(machine)) as qtest:
            machine.qmp.execute("cont")  # vhost runs in a machine that runs
            if iommu.driver == "intel-iommu":
                enable_translation(qtest)
            driver = BareVirtio(BarePci(qtest, Q35), PORT, VSOCK)
            if ats:
                driver.enable_ats()

            def go() -> None:
                came.append(driver.start(VERSION_1 | ACCESS_PLATFORM))

            outcome = outcome_of_doing(machine, go)
        if not came:
            return VhostStart(outcome)
        return VhostStart(outcome, came[0], traced(machine))

    return start


# -- data through a mapping ---------------------------------------------------------------------


class Forget(enum.Enum):
    """What the driver says after it has changed a mapping."""

    NOTHING = "nothing"
    UNIT = "IOTLB invalidation"
    DEVICE = "IOTLB and device-TLB invalidation"


MISS, TRANSLATE = "vhost_iotlb_miss", "vtd_dmar_translate"
INVALIDATE = "vtd_inv_desc"
RX_BUFFER, TX_BUFFER = 0x18_0000, 0x18_1000
"""Bus addresses, mapped `SHIFT` further up, and the first later to `MOVED`."""
SHIFT, MOVED, _TABLES = 0x40_0000, 0x60_0000, 0x80_0000
PLACES: Mapping[str, int] = {
    "mapped": RX_BUFFER + SHIFT, "moved": MOVED, "same number": RX_BUFFER,
}  # fmt: skip
"""Where in memory an answer may come to lie."""

Lies = Mapping[str, bytes]
"""Name of a place to the bytes there, as many as an answer has."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Where the answers to two requests lie; the receive buffer was mapped elsewhere meanwhile."""

    talk: Dialogue
    started: Started
    first: Lies
    second: Lies
    events: tuple[TraceEvent, ...]

    def count(self, name: str, containing: str = "") -> int:
        """Return how many events *name* there were, with *containing* in what they say."""
        return sum(e.name == name and containing in e.arguments for e in self.events)


class AskTwice(Protocol):
    """Lets a vhost device answer two requests, 0 and 1; see `ask_twice`."""

    def __call__(
        self, talk: Dialogue, forget: Forget, *, ats: bool = False, platform: bool = True
    ) -> Answers:
        """Return what came of it.

        :param forget: what is said between the two, after the mapping was changed.
        :param ats: the driver enables ATS.
        :param platform: ``iommu_platform=on``; if not, rings and packets lie where it is told.
        """


@pytest.fixture(scope="module")
def answered() -> dict[tuple[object, ...], Answers]:
    """What was asked already."""
    return {}


Apart = Callable[[Dialogue], Dialogue]
"""Tells a dialogue apart from others on the host; see `apart`."""


@pytest.fixture(scope="session")
def apart() -> Apart:
    """Tell machines apart that are on the host one after the other, or with those of others.

    Each kind of device is counted by itself: of taps there are sixteen. A count begins anywhere:
    a CID is for all of the host, and nobody tells which are taken.
    """
    numbers: defaultdict[str, Iterator[int]] = defaultdict(
        lambda: itertools.count(secrets.randbelow(1 << 30))
    )
    return lambda talk: talk.apart(next(numbers[talk.name]))


@pytest.fixture
def ask_twice(
    host: Host,
    launch: Launch,
    answered: dict[tuple[object, ...], Answers],
    apart: Apart,
) -> AskTwice:
    """Let a vhost device answer two requests below a unit that maps all that it may touch.

    Each machine is started once.
    """

    def ask(
        talk: Dialogue, forget: Forget, *, ats: bool = False, platform: bool = True
    ) -> Answers:
        key = (talk.name, forget, ats, platform)
        if key not in answered:
            answered[key] = look(talk, forget, ats, platform)
        return answered[key]

    def look(talk: Dialogue, forget: Forget, ats: bool, platform: bool) -> Answers:
        talk = apart(talk)
        machine = launch(talk_spec(able(host, talk), talk, ats=ats, platform=platform))
        if talk.prepare:
            host.run(talk.prepare)
        return answers_of(machine, talk, forget, ats=ats, platform=platform)

    return ask


def talk_spec(host: Host, talk: Dialogue, *, ats: bool, platform: bool) -> MachineSpec:
    """Return the machine of `answers_of`."""
    options = arguments("intel-iommu", {"device-iotlb": ats, "aw-bits": 48}, properties_of(host))
    iommu = Device("intel-iommu", "iommu", options=options)
    words = [word for event in (MISS, TRANSLATE, INVALIDATE) for word in ("-trace", event)]
    spec = vhost_spec(host, iommu, talk.device(platform=platform))
    return with_qtest(spec.saying(*talk.extra, *words))


def answers_of(
    machine: Machine,
    talk: Dialogue,
    forget: Forget,
    *,
    ats: bool,
    platform: bool,
    stop: bool = True,
) -> Answers:
    """Set up the unit and the device of *machine*, and ask twice; see `AskTwice`.

    :param stop: the driver stops the device then. One that runs may stay on the host when its
        machine ends (docs/findings/vhost-stays-open.md).
    """
    shift = SHIFT if platform else 0
    with contextlib.closing(connect(machine)) as qtest:
        machine.qmp.execute("cont")
        unit = BareVtd(qtest, _TABLES)
        unit.attach(VSOCK, device_tlb=ats)
        unit.map(RINGS, RINGS + SHIFT, RING_PAGES)
        unit.map(RX_BUFFER, RX_BUFFER + SHIFT)
        unit.map(TX_BUFFER, TX_BUFFER + SHIFT)
        unit.enable()
        driver = BareVirtio(BarePci(qtest, Q35), PORT, VSOCK)
        if ats:
            driver.enable_ats()
        started = driver.start(VERSION_1 | ACCESS_PLATFORM)
        receive, send = (driver.queue(n, lambda at: at + shift) for n in (0, 1))

        def answer(number: int) -> Lies:
            request, length = talk.request(number), len(talk.answer(number))
            qtest.put(TX_BUFFER + shift, request)
            receive.offer(RX_BUFFER, 0x1000, writable=True)
            send.offer(TX_BUFFER, len(request), writable=False)
            wait_until(
                f"{talk.driver} answers request {number}", lambda: receive.returned,
                timeout=30, guards=(machine.check,),
            )  # fmt: skip
            return {
                name: qtest.get(place + talk.skipped, length) for name, place in PLACES.items()
            }

        first = answer(0)
        unit.map(RX_BUFFER, MOVED)
        if forget is not Forget.NOTHING:
            unit.invalidate(RX_BUFFER)
        if forget is Forget.DEVICE:
            unit.invalidate_device(VSOCK, RX_BUFFER)
        second = answer(1)
        if stop:
            driver.stop()
        return Answers(talk, started, first, second, traced(machine))


# -- a guest ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """A disk of the booted guest: zeros, in no file.

    :param driver: QEMU's device.
    :param where: its slot in the machine.
    """

    name: str
    driver: str
    where: Bdf
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    bus: str = "pcie.0"

    def device(self) -> Device:
        """Return it as the machine is given it."""
        addr = f"{self.where.device:#x}" if self.bus == "pcie.0" else "0"
        return Device(
            self.driver, self.name, self.bus, addr, {"drive": f"{self.name}-data", **self.options}
        )

    def backend(self) -> tuple[str, ...]:
        """Return the words for what is behind it."""
        size = 16 << 20
        node = f"null-co,node-name={self.name}-data,size={size},read-zeroes=on"
        return ("-blockdev", node)


_PLATFORM: Mapping[str, str | int | bool] = {"iommu_platform": True, "disable-legacy": "on"}
DISKS: Mapping[str, GuestDisk] = {
    disk.name: disk
    for disk in (
        GuestDisk("plain", "virtio-blk-pci", Bdf(0, 0, 0x10, 0)),
        GuestDisk("platform", "virtio-blk-pci", Bdf(0, 0, 0x11, 0), _PLATFORM),
        GuestDisk("ats", "virtio-blk-pci", Bdf(0, 1, 0, 0), {**_PLATFORM, "ats": True}, bus="rp0"),
        GuestDisk("nvme", "nvme", Bdf(0, 0, 0x12, 0), {"serial": "emulated"}),
    )
}
"""Disks of the booted guest, by name."""


@pytest.fixture
def translating(resident: Resident, evidence: Path) -> Nested:
    """A booted guest with intel-iommu and a disk of every sort; nothing is assigned to it."""
    properties = properties_of(resident.host)
    options = arguments("intel-iommu", {"intremap": True, "device-iotlb": True}, properties)
    guest = resident.guest(
        "virtio-guest",
        devices=[],
        iommu=Device("intel-iommu", "iommu", options=options),
        append="intel_iommu=on iommu.strict=1",
        emulated=[disk.device() for disk in DISKS.values()],
        extra=[word for disk in DISKS.values() for word in disk.backend()],
    )
    guest.machine.evidence_for(evidence)
    assert guest.guest is not None
    guest.guest.run("modprobe virtio_blk")
    return guest

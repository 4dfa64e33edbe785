"""Linux on an intel-iommu in the ways that other suites boot it.

QEMU's functional test boots four modes; kvm-unit-tests sets a unit up by hand and asserts. The
same is asked here of a Linux that set it up, on the same machine.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.guest.keys import RunKey
from harness.guest.vfio_driver import VfioDriver, drive
from harness.host.virtual import VirtualHost
from harness.lab.driver_guest import DriverGuest, open_driver_guest
from harness.lab.parts import Parts
from harness.machine.command import Device
from harness.machine.traces import TraceWindow
from harness.machine.vtd import VtdRegisters, read_registers
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.registers import CAP, ECAP, GSTS
from harness.parse.dmesg import DomainType
from harness.testing import must_fail
from harness.wait import wait_until
from suites.intel_iommu.conftest import Booted, Guests, booted

pytestmark = pytest.mark.full


class Mode(enum.Enum):
    """A kernel line, and whether the unit has caching mode."""

    DEFAULT = ("intel_iommu=on", False)
    STRICT = ("intel_iommu=on iommu.strict=1", False)
    STRICT_CACHING = ("intel_iommu=on iommu.strict=1", True)
    PASSTHROUGH = ("intel_iommu=on iommu=pt", False)
    UNSAID = ("", False)
    OFF = ("intel_iommu=off", False)


FOUR = (Mode.DEFAULT, Mode.STRICT, Mode.STRICT_CACHING, Mode.PASSTHROUGH)
EXPECTED: Mapping[Mode, tuple[bool | None, DomainType]] = {
    Mode.DEFAULT: (False, DomainType.TRANSLATED),
    Mode.STRICT: (True, DomainType.TRANSLATED),
    Mode.STRICT_CACHING: (True, DomainType.TRANSLATED),
    Mode.PASSTHROUGH: (None, DomainType.PASSTHROUGH),
}
"""Strict, which is not said where nothing is translated, and the domain of a function."""

Boot = Callable[[Mode], Booted]


@pytest.fixture(scope="module")
def boot(guests: Guests, shared_evidence: Callable[[str], Path]) -> Boot:
    """Boot a guest in some mode and look at it; each is booted once."""

    @functools.cache
    def look(mode: Mode) -> Booted:
        line, caching = mode.value
        unit = VtdConfig.of(intremap=True, caching_mode=caching)
        evidence = shared_evidence(f"boot-{mode.name.lower()}")
        with guests.on(unit, line, evidence=evidence) as guest:
            return booted(guest)

    return look


def check_mode(seen: Booted, mode: Mode) -> None:
    """Linux says that it is on, every function has a group, and the mode is the one wanted."""
    assert seen.log.enabled and seen.groups, seen
    assert (seen.log.strict, seen.log.domain_type) == EXPECTED[mode], seen.log
    assert bool(CAP.get(seen.registers.cap, "CM")) == mode.value[1], f"{seen.registers}"


@pytest.mark.parametrize("mode", FOUR, ids=lambda mode: mode.name.lower())
@pytest.mark.rule("KUT-03")
def test_four_modes_boot(boot: Boot, mode: Mode) -> None:
    """Default, strict, strict with caching mode, pass-through: each boots, with groups."""
    check_mode(boot(mode), mode)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [(Mode.DEFAULT, Mode.STRICT), (Mode.STRICT, Mode.STRICT_CACHING),
     (Mode.STRICT, Mode.PASSTHROUGH), (Mode.OFF, Mode.DEFAULT)],
    ids=lambda mode: mode.name.lower(),
)  # fmt: skip
@pytest.mark.negative_control("KUT-03")
def test_another_mode_is_noticed(boot: Boot, mode: Mode, wanted: Mode) -> None:
    """A guest in another mode fails the check."""
    with must_fail():
        check_mode(boot(mode), wanted)


def check_sysfs_tells(seen: Booted) -> None:
    """There is a unit in sysfs if and only if the unit translates and functions have groups."""
    assert bool(seen.units) == bool(seen.groups) == seen.translates, seen


@pytest.mark.parametrize(
    "mode", [Mode.DEFAULT, Mode.UNSAID, Mode.OFF], ids=lambda mode: mode.name.lower()
)
@pytest.mark.rule("ENV-08")
def test_sysfs_tells_whether_linux_uses_it(boot: Boot, mode: Mode) -> None:
    """Whatever was said on the kernel line, /sys/class/iommu tells whether the IOMMU is on."""
    check_sysfs_tells(boot(mode))


@pytest.mark.negative_control("ENV-08")
def test_a_unit_that_is_not_used_is_noticed(boot: Boot) -> None:
    """Units of a guest that uses its IOMMU do not belong to one that does not."""
    with must_fail():
        check_sysfs_tells(replace(boot(Mode.OFF), units=boot(Mode.DEFAULT).units))


# -- kvm-unit-tests x86/intel-iommu.c -----------------------------------------------------------


IOVA, OTHER = 0x10_0000, 0x20_0000
BUFFER = 0x40000
SOURCE, TARGET, COUNT, COMMAND = 0x80, 0x88, 0x90, 0x98
RAISE, ACKNOWLEDGE = 0x60, 0x64
TO_BUFFER, FROM_BUFFER = 0x1, 0x3
DATA = bytes.fromhex("12345678")
REMAP = "vtd_ir_remap_type"
SET_UP = ("QIES", "RTPS", "IRTPS", "TES", "IRES")
PIN, MESSAGE = "IOAPIC", "MSI"
"""Words of that event. Trigger modes tell nothing: Linux makes all entries edge-triggered."""


@pytest.fixture(scope="module")
def four_cpus(
    virtual_host: VirtualHost,
    parts: Parts,
    run_key: RunKey,
    shared_evidence: Callable[[str], Path],
) -> Iterator[DriverGuest]:
    """Their machine: q35, split irqchip, intremap=on, eim=off, edu, four processors."""
    opened = open_driver_guest(
        parts,
        key=run_key,
        evidence=shared_evidence("four-cpus"),
        iommu=Device("intel-iommu", "iommu", options={"intremap": True, "eim": "off"}),
        append="iommu.strict=1",
        cpus=4,
        saved=False,
    )
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def driver(four_cpus: DriverGuest) -> Iterator[VfioDriver]:
    """Its edu, driven from user space."""
    bdf = four_cpus.edu().bdf
    with four_cpus.host.bound(bdf, "vfio-pci"), drive(four_cpus.host, bdf) as driver:
        yield driver


def check_machine(processors: int, seen: VtdRegisters) -> None:
    """Four processors, interrupts remapped, without the extended mode."""
    modes = ECAP.get(seen.ecap, "IR"), ECAP.get(seen.ecap, "EIM")
    assert (processors, *modes) == (4, 1, 0), f"{processors} processors, {seen}"


@pytest.mark.rule("KUT-01")
def test_their_machine_runs_linux(four_cpus: DriverGuest) -> None:
    """The machine of kvm-unit-tests' intel_iommu boots Linux, on four processors."""
    processors = int(four_cpus.host.run("nproc").stdout)

    check_machine(processors, read_registers(four_cpus.machine))


@pytest.mark.negative_control("KUT-01")
def test_another_machine_is_noticed(boot: Boot) -> None:
    """A machine with one processor and another unit fails the check."""
    with must_fail():
        check_machine(1, boot(Mode.DEFAULT).registers)


def check_set_up(seen: VtdRegisters) -> None:
    """No fault; queue, tables, translation and remapping are on; 39 bits, large pages."""
    off = [name for name in SET_UP if not GSTS.get(seen.global_status, name)]
    assert (seen.fault_status, off) == (0, []), f"{seen}"
    assert CAP.get(seen.cap, "SAGAW") & 0b10, f"{seen}: no 39-bit tables"
    assert CAP.get(seen.cap, "SSLPS") & 0b01, f"{seen}: no pages of 2 MiB"


@pytest.mark.rule("KUT-02")
def test_the_unit_is_set_up(four_cpus: DriverGuest) -> None:
    """Registers of the unit say all that kvm-unit-tests asserts of its own set-up."""
    check_set_up(read_registers(four_cpus.machine))


@pytest.mark.negative_control("KUT-02")
def test_a_unit_that_nobody_set_up_is_noticed(boot: Boot) -> None:
    """The unit of a guest that does not use it fails the check."""
    with must_fail():
        check_set_up(boot(Mode.OFF).registers)


def check_copied(driver: VfioDriver) -> None:
    """Four bytes go to the device and come back to another page."""
    driver.map(IOVA)
    driver.map(OTHER)
    driver.put(IOVA, DATA)
    for source, target, command in ((IOVA, BUFFER, TO_BUFFER), (BUFFER, OTHER, FROM_BUFFER)):
        for register, value in ((SOURCE, source), (TARGET, target), (COUNT, len(DATA))):
            driver.write(0, register, value)
        driver.write(0, COMMAND, command)
        idle(driver)
    assert driver.get(OTHER, len(DATA)) == DATA, driver.get(OTHER, len(DATA)).hex()


def idle(driver: VfioDriver) -> None:
    """Wait until the device has copied."""
    wait_until("DMA engine of edu idle", lambda: not driver.read(0, COMMAND) & 1, timeout=10)


@pytest.mark.rule("KUT-02")
def test_four_bytes_are_copied(driver: VfioDriver) -> None:
    """A DMA of four bytes through the tables works both ways."""
    check_copied(driver)


@pytest.mark.negative_control("KUT-02")
def test_a_copy_that_does_not_happen_is_noticed(driver: VfioDriver) -> None:
    """A device that is no bus master copies nothing."""
    driver.master(False)

    with must_fail():
        check_copied(driver)


def interrupted(guest: DriverGuest, driver: VfioDriver, kind: str) -> tuple[int, TraceWindow]:
    """Let the device interrupt once; return how often that came, and what was remapped."""
    with guest.machine.tracing(REMAP) as window:
        driver.interrupts(kind, 1)
        driver.write(0, RAISE, 1)
        came = driver.wait()
        driver.write(0, ACKNOWLEDGE, 1)
    return came, window


def check_remapped(came: int, window: TraceWindow, way: str) -> None:
    """It came once, and an interrupt of that kind went through the table."""
    ways = {event.arguments for event in window.events}
    assert came == 1 and way in ways, f"came {came} times; remapped: {', '.join(ways)}"


@pytest.mark.parametrize(("kind", "way"), [("intx", PIN), ("msi", MESSAGE)])
@pytest.mark.rule("KUT-02")
def test_interrupts_are_remapped(
    four_cpus: DriverGuest, driver: VfioDriver, kind: str, way: str
) -> None:
    """An interrupt of the device's pin, through the IO-APIC, and its message are remapped."""
    check_remapped(*interrupted(four_cpus, driver, kind), way)


@pytest.mark.negative_control("KUT-02")
def test_a_message_is_no_pin(four_cpus: DriverGuest, driver: VfioDriver) -> None:
    """The message of the device does not come from the IO-APIC."""
    seen = interrupted(four_cpus, driver, "msi")

    with must_fail():
        check_remapped(*seen, PIN)

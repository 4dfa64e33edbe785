"""Linux on an intel-iommu with the options that change what it can use.

Scalable mode, a first stage, narrow addresses, extended interrupts, no DMA translation: registers
and refusals are in `test_registers` and `test_refusals`; here a guest boots on each, and a disk is
written and read through what Linux made of it.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.guest.block import BlockDevice
from harness.host.accelerator import Accel
from harness.host.virtual import VirtualHost
from harness.lab.driver_guest import run_by_qemu_under_test
from harness.lab.parts import Parts
from harness.machine.command import Device, Disk
from harness.machine.vtd import VtdRegisters, read_translation
from harness.model.difference import first_difference
from harness.model.pattern import pattern
from harness.model.pci import Bdf
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.registers import ECAP
from harness.model.vtd.tables import Stage, Translation
from harness.parse.dmesg import IommuBoot
from harness.testing import must_fail, skip
from suites.intel_iommu.conftest import Booted, Guests, booted

pytestmark = pytest.mark.full

TRANSLATED = "vtd_dmar_translate"
NVME = Device("nvme", "data", "pcie.0", "0x10", {"serial": "data", "drive": "data"})
WHERE = Bdf(0, 0, 0x10, 0)
SIZE, LENGTH, SEED = 1 << 20, 1 << 16, 7
UNIT = VtdConfig.of(intremap=True)


class Options(enum.Enum):
    """How the unit is set up, and words for the kernel."""

    SCALABLE = (UNIT.having(scalable_mode=True, eim=False), "intel_iommu=on,sm_on")
    FIRST_STAGE = (UNIT.having(scalable_mode=True, fsts=True, eim=False), "intel_iommu=on,sm_on")
    NARROW = (UNIT.having(aw_bits=39, eim=True), "intel_iommu=on")
    NO_DMA = (UNIT.having(dma_translation=False, eim=False), "intel_iommu=on")

    @property
    def extended(self) -> bool:
        """The unit is told to have extended interrupts."""
        unit, _ = self.value
        return bool(unit.device_options["eim"])


EXPECTED: Mapping[Options, Translation] = {
    Options.SCALABLE: Translation(True, Stage.SECOND, 4),
    Options.FIRST_STAGE: Translation(True, Stage.FIRST, 4),
    Options.NARROW: Translation(False, Stage.SECOND, 3),
}
"""What Linux makes of them."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a guest showed after its boot, and what became of its disk.

    :param translation: of the disk's function, by the tables in memory.
    :param translated: addresses of it that QEMU translated.
    :param read_back: the guest read what it had written.
    :param stored: what the disk's file has.
    """

    boot: Booted
    translation: Translation | None
    translated: int
    read_back: bool
    stored: bytes


See = Callable[[Options], Seen]


def look(guest: VirtualHost, disk: Path) -> Seen:
    """Look at *guest*, and write and read its disk."""
    boot = booted(guest)
    name = guest.run(f"ls /sys/bus/pci/devices/{WHERE}/nvme/* -d").stdout.split()
    assert len(name) == 1, name
    block = BlockDevice(guest, f"/dev/{name[0].rpartition('/')[2]}n1")
    with guest.machine.tracing(TRANSLATED) as window:
        block.fill(SEED, offset=0, length=LENGTH)
        read_back = block.holds(SEED, offset=0, length=LENGTH)
    source = f"dev {WHERE.bus:02x}:{WHERE.device:02x}.{WHERE.function:02x} "
    return Seen(
        boot,
        read_translation(guest.machine, WHERE) if boot.translates else None,
        window.count(TRANSLATED, source),
        read_back,
        disk.read_bytes()[:LENGTH],
    )


def needs_extended(parts: Parts, evidence: Path) -> None:
    """Skip where the QEMU under test has extended interrupts with KVM only (VTD-06)."""
    accelerator = run_by_qemu_under_test(parts).accelerator(evidence)
    if accelerator.accel is not Accel.KVM and not parts.qemu.version.has(9, 0):
        skip(
            f"eim=on of QEMU {parts.qemu.version} needs KVM ({accelerator.reason})",
            enabled_by="QEMU 9.0 or later, or a computer with a working /dev/kvm,",
        )


@pytest.fixture(scope="module")
def see(guests: Guests, parts: Parts, shared_evidence: Callable[[str], Path]) -> See:
    """Boot a guest on a unit with some options and look at it; each is booted once."""

    @functools.cache
    def boot(options: Options) -> Seen:
        unit, words = options.value
        evidence = shared_evidence(f"options-{options.name.lower()}")
        if options.extended:
            needs_extended(parts, evidence)
        disk = evidence / "data.raw"
        disk.write_bytes(bytes(SIZE))
        disks = [Disk("data", str(disk))]
        with guests.on(unit, words, evidence=evidence, devices=[NVME], disks=disks) as guest:
            return look(guest, disk)

    return boot


def check_data(seen: Seen) -> None:
    """What the guest wrote lies on the disk, and it read the same."""
    wrong = first_difference(seen.stored, pattern(SEED, 0, LENGTH))
    assert wrong is None, f"on the disk: {wrong}"
    assert seen.read_back, "the guest read something else"


def check_translates(seen: Seen, expected: Translation) -> None:
    """Linux uses the unit in the wanted way, and the data of a disk went through it."""
    boot = seen.boot
    assert boot.log.enabled and boot.groups and boot.units, boot.log
    assert boot.translates and boot.remaps, f"{boot.registers}"
    assert seen.translation == expected, f"{seen.translation}, expected {expected}"
    assert seen.translated > 0, "the disk goes past the unit"
    check_data(seen)


@pytest.mark.parametrize("options", [
    pytest.param(Options.SCALABLE, marks=pytest.mark.rule("VTD-34")),
    pytest.param(Options.FIRST_STAGE, marks=pytest.mark.rule("VTD-34")),
    pytest.param(Options.NARROW, marks=pytest.mark.rule("VTD-30")),
], ids=lambda options: options.name.lower())  # fmt: skip
def test_a_disk_is_translated(see: See, options: Options) -> None:
    """Scalable mode by either stage, and 39 bits by three levels: a disk works through each."""
    check_translates(see(options), EXPECTED[options])


@pytest.mark.parametrize(("options", "other"), [
    pytest.param(Options.SCALABLE, Options.FIRST_STAGE,
                 marks=pytest.mark.negative_control("VTD-34")),
    pytest.param(Options.NARROW, Options.SCALABLE,
                 marks=pytest.mark.negative_control("VTD-30", "VTD-34")),
    pytest.param(Options.SCALABLE, Options.NARROW, marks=pytest.mark.negative_control("VTD-30")),
], ids=lambda options: options.name.lower())  # fmt: skip
def test_another_translation_is_noticed(see: See, options: Options, other: Options) -> None:
    """A guest whose unit has other options fails the check."""
    with must_fail():
        check_translates(see(options), EXPECTED[other])


@pytest.mark.negative_control("VTD-30", "VTD-34")
def test_other_data_are_noticed(see: See) -> None:
    """A disk that has something else fails the check."""
    seen = see(Options.NARROW)
    spoilt = bytes([seen.stored[0] ^ 1]) + seen.stored[1:]

    with must_fail():
        check_translates(replace(seen, stored=spoilt), EXPECTED[Options.NARROW])


def check_bypasses(seen: Seen) -> None:
    """Linux says why it does not translate; interrupts are remapped, and the disk works."""
    boot = seen.boot
    assert boot.log.no_address_widths, "the log does not say that no address width is supported"
    assert (boot.groups, boot.units) == ({}, ()), f"{boot.units}, groups {boot.groups}"
    assert boot.remaps and not boot.translates, f"{boot.registers}"
    assert seen.translated == 0, f"{seen.translated} addresses of the disk were translated"
    check_data(seen)


@pytest.mark.rule("VTD-32")
def test_without_dma_translation_only_interrupts_are_remapped(see: See) -> None:
    """``dma-translation=off``: Linux says so, and makes no groups; a disk works past the unit."""
    check_bypasses(see(Options.NO_DMA))


@pytest.mark.parametrize("options", [Options.SCALABLE, Options.NARROW],
                         ids=lambda options: options.name.lower())  # fmt: skip
@pytest.mark.negative_control("VTD-32")
def test_a_unit_that_translates_is_noticed(see: See, options: Options) -> None:
    """A guest whose unit translates fails the check."""
    with must_fail():
        check_bypasses(see(options))


def check_interrupt_mode(log: IommuBoot, registers: VtdRegisters, extended: bool) -> None:
    """EIM of the unit is as it was told, and Linux takes the mode that this allows."""
    assert bool(ECAP.get(registers.ecap, "EIM")) == extended, f"{registers}"
    wanted = "x2apic" if extended else "xapic"
    assert log.interrupt_mode == wanted, f"{log.interrupt_mode} mode, expected {wanted}"


@pytest.mark.parametrize("options", [Options.NARROW, Options.SCALABLE, Options.NO_DMA],
                         ids=lambda options: options.name.lower())  # fmt: skip
@pytest.mark.rule("VTD-49")
def test_interrupts_are_extended_by_eim(see: See, options: Options) -> None:
    """``eim=on`` lets Linux use x2APIC, ``eim=off`` keeps it from that; translated or not."""
    boot = see(options).boot

    check_interrupt_mode(boot.log, boot.registers, options.extended)


@pytest.mark.parametrize(("options", "other"), [
    (Options.NARROW, Options.SCALABLE), (Options.SCALABLE, Options.NARROW),
], ids=lambda options: options.name.lower())  # fmt: skip
@pytest.mark.negative_control("VTD-49")
def test_interrupts_of_another_unit_are_noticed(
    see: See, options: Options, other: Options
) -> None:
    """The log of a guest on a unit with the other ``eim`` fails the check."""
    registers = see(options).boot.registers

    with must_fail():
        check_interrupt_mode(see(other).boot.log, registers, options.extended)

"""Registers of intel-iommu, read before any guest code ran: what options and version imply."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from harness.host.host import Host
from harness.lab.vtd import Observed, properties_of
from harness.machine.vtd import VtdRegisters
from harness.model.address import AddressRange
from harness.model.memory_map import Kind
from harness.model.version import QemuVersion
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.expected import Irqchip, expected_version
from harness.model.vtd.properties import wrong_properties
from harness.model.vtd.refusals import PASID_BITS
from harness.model.vtd.registers import REGISTERS_BASE
from harness.testing import must_fail
from suites.intel_iommu.conftest import Observe

PLAIN = VtdConfig.of(caching_mode=False)
NARROW = VtdConfig.of(dma_translation=False, intremap=False)
MANY = VtdConfig.of(eim=False, device_iotlb=True, snoop_control=True)
OLD = VtdConfig.of(dma_drain=False, pt=False)
"""What newer builds cannot be told."""

SCALABLE = VtdConfig.of(scalable_mode=True)


@dataclass(frozen=True, slots=True)
class Pair:
    """A set-up, one that differs in what the rules are about, and the rules."""

    config: VtdConfig
    other: VtdConfig
    rules: tuple[str, ...]
    full: bool = False
    """Only in a full run: another set-up shows the same bits."""

    def marks(self, mark: pytest.MarkDecorator) -> list[pytest.MarkDecorator]:
        """Return the marks of a test that has *mark*."""
        return [mark] + [pytest.mark.full] * self.full


PAIRS = (
    # The four combinations of interrupt controller and caching mode.
    Pair(PLAIN,
         VtdConfig.of(Irqchip.SPLIT, caching_mode=True), ("VTD-30",)),
    Pair(VtdConfig.of(Irqchip.SPLIT, caching_mode=True),
         VtdConfig.of(Irqchip.ON, caching_mode=True), ("VTD-03", "VTD-07", "VTD-33")),
    Pair(VtdConfig.of(Irqchip.ON, caching_mode=False),
         VtdConfig.of(Irqchip.ON, caching_mode=True), ("VTD-30",), full=True),
    Pair(VtdConfig.of(Irqchip.ON, caching_mode=True),
         VtdConfig.of(Irqchip.SPLIT, caching_mode=True), ("VTD-03", "VTD-33"), full=True),
    # Other interrupt controllers.
    Pair(VtdConfig(Irqchip.TCG), PLAIN, ("VTD-03", "VTD-07")),
    Pair(VtdConfig.of(Irqchip.TCG, eim=True), VtdConfig.of(Irqchip.TCG), ("VTD-07",), full=True),
    Pair(VtdConfig(Irqchip.ON, says_irqchip=False), PLAIN, ("VTD-04",)),
    # Widths.
    Pair(VtdConfig.of(aw_bits=39, caching_mode=True),
         VtdConfig.of(aw_bits=48, caching_mode=True), ("VTD-30",), full=True),
    Pair(PLAIN, PLAIN.having(aw_bits=39), ("VTD-10",)),
    Pair(VtdConfig(machine="pc-q35-9.1"), PLAIN.having(aw_bits=48), ("VTD-10",)),
    # Options that show in one or two bits: set together, then each taken back for a control.
    Pair(OLD, OLD.having(dma_drain=True), ("VTD-31",)),
    Pair(OLD, OLD.having(pt=True), ("VTD-33",)),
    Pair(NARROW, NARROW.having(dma_translation=True), ("VTD-32",)),
    Pair(NARROW, NARROW.having(intremap=True), ("VTD-33",)),
    Pair(MANY, MANY.having(eim=True), ("VTD-33",)),
    Pair(MANY, MANY.having(device_iotlb=False), ("VTD-33",), full=True),
    Pair(MANY, MANY.having(snoop_control=False), ("VTD-33",), full=True),
    Pair(SCALABLE, SCALABLE.having(scalable_mode=False), ("VTD-34",)),
    Pair(SCALABLE.having(fsts=True), SCALABLE, ("VTD-34",), full=True),
    Pair(SCALABLE.having(pasid_bits=PASID_BITS), SCALABLE, ("VTD-34",), full=True),
)  # fmt: skip

SUBJECTS = [
    pytest.param(
        config,
        id=config.label,
        marks=[pytest.mark.rule(*p.rules) for p in pairs]
        + [pytest.mark.full] * all(p.full for p in pairs),
    )
    for config, pairs in (
        (config, [p for p in PAIRS if p.config == config])
        for config in dict.fromkeys(p.config for p in PAIRS)
    )
]
CONTROLS = [
    pytest.param(
        p,
        id=f"{p.config.label} not {p.other.label}",
        marks=p.marks(pytest.mark.negative_control(*p.rules)),
    )
    for p in PAIRS
]


def registers(observed: Observed) -> VtdRegisters:
    """Return its registers; there must be some."""
    assert observed.registers is not None, f"no intel-iommu; see {observed.evidence}"
    return observed.registers


def check_capabilities(host: Host, observed: Observed, config: VtdConfig) -> None:
    """CAP and ECAP are what *config* implies."""
    seen = registers(observed)
    cap, ecap = config.cap(host.qemu.version), config.ecap(properties_of(host))
    assert cap.matches(seen.cap), cap.explain(seen.cap)
    assert ecap.matches(seen.ecap), ecap.explain(seen.ecap)


@pytest.mark.parametrize("config", SUBJECTS)
def test_capabilities_are_what_the_options_imply(
    host: Host, observe: Observe, config: VtdConfig
) -> None:
    """CAP and ECAP show options, interrupt controller, machine type and version, bit by bit."""
    check_capabilities(host, observe(config), config)


@pytest.mark.parametrize("pair", CONTROLS)
def test_an_option_the_other_way_is_noticed(host: Host, observe: Observe, pair: Pair) -> None:
    """Capabilities of a machine set up otherwise fail the check."""
    with must_fail():
        check_capabilities(host, observe(pair.config), pair.other)


def check_version(seen: VtdRegisters) -> None:
    """VER is 1.0."""
    assert expected_version().matches(seen.version), expected_version().explain(seen.version)


COMBINATIONS = [p.config for p in PAIRS[:4]]
EACH = pytest.mark.parametrize("config", COMBINATIONS, ids=lambda config: config.label)


@EACH
@pytest.mark.rule("VTD-29")
def test_version_is_1_0(observe: Observe, config: VtdConfig) -> None:
    """VER reads 0x10 whatever the set-up."""
    check_version(registers(observe(config)))


@pytest.mark.negative_control("VTD-29")
def test_another_version_is_noticed(observe: Observe) -> None:
    """The version that scalable mode has on hardware (0x30) fails the check."""
    with must_fail():
        check_version(replace(registers(observe(COMBINATIONS[0])), version=0x30))


def check_place(observed: Observed) -> None:
    """One i/o row of 0x230 bytes at the base answers as intel_iommu."""
    window = AddressRange(REGISTERS_BASE, 0x230)
    rows = observed.memory_map.memory.covering(window)
    assert [(row.kind, row.name, row.range) for row in rows] == [
        (Kind.IO, "intel_iommu", window)
    ], rows


@EACH
@pytest.mark.rule("VTD-28")
def test_registers_are_at_their_place(observe: Observe, config: VtdConfig) -> None:
    """The registers answer at fed90000 to fed9022f, and nothing else does."""
    check_place(observe(config))


@pytest.mark.negative_control("VTD-28")
def test_a_machine_without_registers_is_noticed(observe: Observe) -> None:
    """A machine without an intel-iommu fails the check."""
    with must_fail():
        check_place(observe(VtdConfig(present=False)))


def check_properties(observed: Observed, version: QemuVersion) -> None:
    """The properties of the device are those of this version."""
    wrong = wrong_properties(observed.properties, version)
    assert not wrong, wrong


@pytest.mark.rule("VTD-26")
def test_properties_are_those_of_the_version(host: Host, observe: Observe) -> None:
    """The device has the properties that came with its version, and none that came later."""
    check_properties(observe(PLAIN), host.qemu.version)


@pytest.mark.negative_control("VTD-26")
def test_properties_of_another_version_are_noticed(observe: Observe) -> None:
    """The properties of this QEMU are not those of 3.1."""
    with must_fail():
        check_properties(observe(PLAIN), QemuVersion(3, 1))

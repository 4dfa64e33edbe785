"""A set-up of intel-iommu: what is in force, and the registers that follow."""

from __future__ import annotations

import pytest

from harness.model.version import QemuVersion
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.expected import Irqchip

QEMU = QemuVersion(10, 0, 2)
OLD = frozenset({"x-scalable-mode", "x-pasid-mode", "x-flts", "dma-drain"})
NEW = frozenset({"scalable-mode", "pasid-bits", "fsts"})


@pytest.mark.parametrize(
    ("config", "cap", "ecap"),
    [
        (VtdConfig(), 0x00D2008C222F0606, 0xF00F5A),
        (VtdConfig.of(caching_mode=True), 0x00D2008C222F0686, 0xF00F5A),
        (VtdConfig.of(aw_bits=39, caching_mode=True), 0x00D2008C22260286, 0xF00F5A),
        (VtdConfig.of(dma_drain=False), 0x0012008C222F0606, 0xF00F5A),
        (VtdConfig(Irqchip.ON), 0x00D2008C222F0606, 0xF42),
        (VtdConfig(Irqchip.TCG), 0x00D2008C222F0606, 0xF00F4A),
        (VtdConfig.of(scalable_mode=True), 0x00D2008C222F0606, 0x0000480080F00F5A),
    ],
    ids=lambda value: value.label if isinstance(value, VtdConfig) else f"{value:#x}",
)
def test_registers_are_those_of_the_catalogue(config: VtdConfig, cap: int, ecap: int) -> None:
    assert (config.cap(QEMU).value, config.ecap(OLD).value) == (cap, ecap)


def test_an_old_machine_type_has_the_old_width() -> None:
    assert VtdConfig(machine="pc-q35-9.1").aw_bits(QEMU) == 39
    assert VtdConfig().aw_bits(QEMU) == 48
    assert VtdConfig().aw_bits(QemuVersion(9, 1)) == 39


def test_only_what_is_said_is_on_the_command_line() -> None:
    assert VtdConfig(Irqchip.SPLIT).machine_options == {"kernel-irqchip": "split"}
    assert VtdConfig(Irqchip.ON, says_irqchip=False).machine_options == {}
    assert VtdConfig(Irqchip.TCG).machine_options == {}
    assert VtdConfig.of(caching_mode=True).device_options == {"caching-mode": True}


def test_the_size_of_pasids_shows_where_it_can_be_said() -> None:
    config = VtdConfig.of(scalable_mode=True, pasid_bits=20)

    assert config.arguments(OLD) == {"x-scalable-mode": True, "x-pasid-mode": True}
    assert config.arguments(NEW) == {"scalable-mode": True, "pasid-bits": 20}
    assert config.ecap(OLD).value == 0x0000490080F00F5A
    assert config.ecap(NEW).value == 0x0000499880F00F5A


def test_what_cannot_be_said_is_told() -> None:
    config = VtdConfig.of(dma_drain=False)

    assert config.lacking(OLD) == ""
    assert "before 11.1" in config.lacking(NEW)


def test_having_changes_a_copy() -> None:
    config = VtdConfig.of(caching_mode=True, eim=False)

    changed = config.having(eim=True)

    assert changed.device_options == {"caching-mode": True, "eim": True}
    assert config.device_options["eim"] is False


def test_the_label_tells_set_ups_apart() -> None:
    labels = {
        config.label
        for config in (
            VtdConfig(),
            VtdConfig(Irqchip.ON),
            VtdConfig(Irqchip.ON, says_irqchip=False),
            VtdConfig(machine="pc-q35-9.1"),
            VtdConfig(present=False),
            VtdConfig.of(caching_mode=True),
            VtdConfig.of(caching_mode=False),
        )
    }

    assert len(labels) == 7

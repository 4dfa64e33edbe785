"""What intel-iommu must show, against values read from QEMU 10.0.2."""

from __future__ import annotations

import pytest

from harness.model.version import QemuVersion
from harness.model.vtd.expected import (
    Irqchip,
    default_aw_bits,
    expected_cap,
    expected_ecap,
    expected_version,
    extended_interrupts,
    remaps_interrupts,
)

V10_0 = QemuVersion(10, 0, 2)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"aw_bits": 48}, 0x00D2008C222F0606),
        ({"aw_bits": 48, "caching_mode": True}, 0x00D2008C222F0686),
        ({"aw_bits": 39, "caching_mode": True}, 0x00D2008C22260286),
        ({"aw_bits": 48, "dma_drain": False}, 0x0012008C222F0606),
        ({"aw_bits": 48, "dma_translation": False}, 0x00D2008C222F0006),
        ({"aw_bits": 48, "first_stage": True}, 0x01D2008C222F0606),
        ({"aw_bits": 48, "first_stage": True, "fs1gp": False}, 0x00D2008C222F0606),
    ],
)
def test_cap_of_10_0(options: dict[str, int], value: int) -> None:
    prediction = expected_cap(V10_0, **options)  # type: ignore[arg-type]

    assert (prediction.value, prediction.ignore) == (value, 0)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, 0xF00F5A),
        ({"interrupt_remapping": False, "eim": False}, 0xF42),
        ({"eim": False}, 0xF00F4A),
        ({"device_iotlb": True}, 0xF00F5E),
        ({"snoop_control": True}, 0xF00FDA),
        ({"pass_through": False}, 0xF00F1A),
        ({"scalable": True}, 0x0000480080F00F5A),
        ({"scalable": True, "first_stage": True}, 0x0000880000F00F5A),
        ({"scalable": True, "pasid_bits": 20}, 0x0000490080F00F5A),
        # Observed on 11.1.3, with eim=on.
        ({"scalable": True, "pasid_bits": 20, "tells_pasid_bits": True}, 0x0000499880F00F5A),
        ({"scalable": True, "pasid_bits": 8, "tells_pasid_bits": True}, 0x0000493880F00F5A),
        ({"scalable": True, "tells_pasid_bits": True}, 0x0000480080F00F5A),
    ],
)
def test_ecap_of_10_0_and_11_1(options: dict[str, int], value: int) -> None:
    prediction = expected_ecap(**{"interrupt_remapping": True, "eim": True, **options})  # type: ignore[arg-type]

    assert (prediction.value, prediction.ignore) == (value, 0)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, 0x80D2008C222F0606),
        ({"caching_mode": True}, 0x80D2008C222F0686),
        ({"dma_translation": False}, 0x80D2008C222F0006),
        ({"first_stage": True}, 0x81D2008C222F0606),
        ({"first_stage": True, "fs1gp": False}, 0x80D2008C222F0606),
    ],
)
def test_cap_of_11_1(options: dict[str, bool], value: int) -> None:
    prediction = expected_cap(QemuVersion(11, 1, 3), aw_bits=48, **options)

    assert (prediction.value, prediction.ignore) == (value, 0)


@pytest.mark.parametrize(
    ("version", "without", "with_bit"),
    [
        (QemuVersion(10, 0, 13), True, False),
        (QemuVersion(10, 1, 0), True, True),
        (QemuVersion(10, 1, 50), True, True),
        (QemuVersion(10, 2, 0), False, True),
        (QemuVersion(11, 0, 0), False, True),
        (None, True, True),
    ],
    ids=str,
)
def test_esrtps_comes_with_10_2(
    version: QemuVersion | None, without: bool, with_bit: bool
) -> None:
    prediction = expected_cap(version, aw_bits=48)
    plain = 0x00D2008C222F0606

    assert prediction.matches(plain) is without
    assert prediction.matches(plain | 1 << 63) is with_bit


def test_default_width_follows_the_machine_type() -> None:
    assert default_aw_bits(QemuVersion(9, 1)) == 39
    assert default_aw_bits(QemuVersion(9, 2)) == 48


@pytest.mark.parametrize(
    ("irqchip", "intremap", "eim"),
    [
        (Irqchip.TCG, True, False),
        (Irqchip.OFF, True, False),
        (Irqchip.SPLIT, True, True),
        (Irqchip.ON, False, False),
    ],
)
def test_auto_follows_the_irqchip(irqchip: Irqchip, intremap: bool, eim: bool) -> None:
    in_force = remaps_interrupts(None, irqchip)

    assert in_force is intremap
    assert extended_interrupts(None, in_force, irqchip) is eim


def test_explicit_settings_win() -> None:
    assert remaps_interrupts(False, Irqchip.SPLIT) is False
    assert extended_interrupts(True, True, Irqchip.TCG) is True
    assert extended_interrupts(False, True, Irqchip.SPLIT) is False


def test_what_qemu_refuses_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel-irqchip"):
        remaps_interrupts(True, Irqchip.ON)
    with pytest.raises(ValueError, match="intremap"):
        extended_interrupts(True, False, Irqchip.SPLIT)
    with pytest.raises(ValueError, match="aw-bits"):
        expected_cap(V10_0, aw_bits=57)
    with pytest.raises(ValueError, match="scalable"):
        expected_ecap(interrupt_remapping=True, eim=True, first_stage=True)
    with pytest.raises(ValueError, match="intremap"):
        expected_ecap(interrupt_remapping=False, eim=True)


def test_wrong_register_is_explained() -> None:
    prediction = expected_cap(V10_0, aw_bits=48, caching_mode=True)

    assert prediction.explain(0x00D2008C222F0606) == (
        "CAP reads 0x00d2008c222f0606, expected 0x00d2008c222f0686 (VT-d 11.4.2)\n"
        "  CAP.CM (bit 7, caching mode) is 0x0, expected 0x1"
    )
    assert prediction.explain(prediction.value).endswith("as expected")
    assert expected_version().matches(0x10)
    assert not expected_version().matches(0x11)

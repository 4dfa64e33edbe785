"""Bits of the VT-d registers by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.vtd.registers import (
    CAP,
    ECAP,
    FSTS,
    GSTS,
    VER,
    Capability,
    ExtendedCapability,
    FaultStatus,
    GlobalStatus,
    Layout,
    Version,
)


def test_capability_of_qemu_is_decoded() -> None:
    cap = Capability(0x00D2008C222F0686)

    assert cap.caching_mode
    assert cap.guest_widths == (39, 48)
    assert cap.max_guest_width == 48
    assert cap.domains == 65536
    assert cap.fault_registers == 1
    assert cap.fault_register_offset == 0x220
    assert cap.drains
    assert not cap.esrtps
    assert Capability(0x00D2008C222F0006).guest_widths == ()


def test_extended_capability_of_qemu_is_decoded() -> None:
    plain = ExtendedCapability(0xF00F5A)
    scalable = ExtendedCapability(0x0000490080F00F5A)

    assert plain.queued_invalidation
    assert plain.interrupt_remapping
    assert plain.extended_interrupts
    assert plain.pass_through
    assert not (plain.device_tlb or plain.snoop_control or plain.scalable)
    assert scalable.scalable
    assert scalable.second_stage
    assert scalable.pasid
    assert not scalable.first_stage


def test_version_and_status_are_decoded() -> None:
    assert str(Version(0x10)) == "1:0"
    status = GlobalStatus(0xC7000000)
    assert status.translating
    assert status.root_set
    assert status.queue_enabled
    assert status.remapping_interrupts
    fault = FaultStatus(0x102)
    assert (fault.pending, fault.overflowed, fault.queue_error) == (True, False, False)
    assert fault.first_record == 1


@pytest.mark.parametrize("layout", [VER, CAP, ECAP, GSTS, FSTS], ids=lambda item: item.name)
def test_fields_do_not_overlap_and_fit(layout: Layout) -> None:
    taken = 0
    for field in layout.fields:
        assert not taken & field.mask, field
        taken |= field.mask
    assert taken < 1 << layout.width
    assert len({field.name for field in layout.fields}) == len(layout.fields)


def test_differences_are_said_in_words() -> None:
    found = CAP.differences(0x00D2008C222F0606, 0x00D2008C222F0686 | 1 << 57)

    assert found == (
        "CAP.CM (bit 7, caching mode) is 0x0, expected 0x1",
        "CAP: bits without a name 0x200000000000000 are 0x0, expected 0x200000000000000",
    )


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_there_are_words_for_every_difference(seen: int, expected: int, ignore: int) -> None:
    assert bool(CAP.differences(seen, expected, ignore)) == bool((seen ^ expected) & ~ignore)


def test_unknown_field_is_an_error() -> None:
    with pytest.raises(KeyError, match="NOPE"):
        CAP.field("NOPE")

"""What a C62x must look like, as functions of facts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import qat, sriov
from harness.model.pci import Bdf, Capability, PciFunction

PF = Bdf.parse("0000:85:00.0")


def function(config: bytes = bytes(4096), *capabilities: Capability) -> PciFunction:
    return PciFunction(PF, qat.PF, qat.CLASS, capabilities=capabilities, config=config)


def test_sixteen_functions_are_in_two_slots() -> None:
    found = qat.virtual_functions(PF)

    assert [str(bdf) for bdf in found[:2]] == ["0000:85:01.0", "0000:85:01.1"]
    assert [str(bdf) for bdf in found[-1:]] == ["0000:85:02.7"]
    assert len(set(found)) == 16


def test_functions_of_another_card_may_be_on_the_next_bus() -> None:
    found = sriov.virtual_functions(Bdf.parse("02:00.1"), 2, first=384, stride=2)

    assert [str(bdf) for bdf in found] == ["0000:03:10.1", "0000:03:10.3"]


@given(st.integers(0, 0xFFFFFFFF))
def test_missing_bits_are_those_that_must_be_masked_and_are_not(mask: int) -> None:
    config = bytearray(4096)
    config[0x108:0x10C] = mask.to_bytes(4, "little")
    masked = function(bytes(config), Capability(1, 0x100, extended=True))

    assert qat.uncorrectable_mask(masked) == mask
    assert qat.unmasked(masked) == 0x0050_4000 & ~mask


def test_function_without_the_capability_is_no_answer() -> None:
    with pytest.raises(ValueError, match="shows no extended capability 0x1"):
        qat.unmasked(function())


def test_function_that_was_read_in_part_is_no_answer() -> None:
    short = replace(function(bytes(64)), capabilities=(Capability(1, 0x100, extended=True),))

    with pytest.raises(ValueError, match="only 64 bytes"):
        qat.unmasked(short)


def test_parameters_outside_their_range_are_named() -> None:
    assert qat.heartbeat_complaints(500, 20000) == ()
    assert qat.heartbeat_complaints(1, 20001) == (
        "hb_interval 1 ms is not within 500 and 5000",
        "quiesce_timeout 20001 ms is not within 350 and 20000",
    )


def test_fatal_errors_are_found_with_their_codes() -> None:
    log = "[ 1.0] c6xxvf 0000:ff:00:0: Fatal error received from PF 0x6ac20013\n[ 2.0] other\n"

    assert qat.fatal_errors(log) == (("0000:ff:00:0", 0x6AC20013),)

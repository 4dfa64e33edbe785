"""Attributes of the AP bus: whatever the model shows is read back, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ParseError
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix
from harness.parse.ap_sysfs import (
    read_ap_config,
    read_control_domains,
    read_mask,
    read_matrix,
)

some = st.builds(ApMask.of, st.sets(st.integers(0, 255), max_size=4))
matrices = st.builds(ApMatrix, some, some, some)


@given(matrices)
def test_what_the_kernel_shows_is_read_back(matrix: ApMatrix) -> None:
    shown = read_matrix(matrix.matrix_text())

    assert (shown.adapters, shown.domains) == (matrix.adapters, matrix.domains)
    assert read_control_domains(matrix.control_domains_text()) == matrix.control_domains
    assert read_ap_config(matrix.config_text()) == matrix
    assert read_mask(f"{matrix.adapters}\n") == matrix.adapters


def test_a_mask_may_not_be_supported() -> None:
    assert read_mask("not supported\n") is None


@pytest.mark.parametrize("text", ["", "0x5\n", "5" * 66, "0x" + 64 * "g"])
def test_a_mask_is_shown_in_full(text: str) -> None:
    with pytest.raises(ParseError, match="256 bits"):
        read_mask(text)


@pytest.mark.parametrize("text", ["05.0004\n06.0047\n", "05.\n.0004\n", "05.0104\n", "x\n"])
def test_a_matrix_is_a_product(text: str) -> None:
    with pytest.raises(ParseError, match=r"^matrix:"):
        read_matrix(text)


def test_control_domains_are_digits() -> None:
    with pytest.raises(ParseError, match="not domains"):
        read_control_domains("zz\n")


def test_ap_config_is_three_masks() -> None:
    with pytest.raises(ParseError, match="three masks"):
        read_ap_config("0x\n")

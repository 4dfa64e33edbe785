"""A matrix of AP queues: its product, and the texts that show and set it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.ap.errno import Errno, KernelError
from harness.model.ap.id import Apqn
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix

some = st.sets(st.integers(0, 255), max_size=5)
matrices = st.builds(ApMatrix.of, some, some, some)
NOTHING = 64 * "0"


@pytest.mark.rule("AP-02")
@given(matrices)
def test_queues_are_the_product_of_adapters_and_domains(matrix: ApMatrix) -> None:
    product = [Apqn(a, d) for a in matrix.adapters for d in matrix.domains]

    assert list(matrix) == product
    assert len(matrix) == len(product)
    assert all(apqn in matrix for apqn in product)


@pytest.mark.rule("AP-02")
def test_matrix_lists_one_queue_a_line() -> None:
    matrix = ApMatrix.of([0, 2], [0, 2, 3])

    # Figure 1 of IBM's page.
    assert matrix.matrix_text().split() == [
        "00.0000", "00.0002", "00.0003", "02.0000", "02.0002", "02.0003",
    ]  # fmt: skip


@pytest.mark.rule("AP-10")
def test_adapters_or_domains_alone_are_bare_prefixes() -> None:
    assert ApMatrix.of([0, 0xA], []).matrix_text() == "00.\n0a.\n"
    assert ApMatrix.of([], [0x47]).matrix_text() == ".0047\n"
    assert ApMatrix().matrix_text() == ""


@pytest.mark.rule("AP-11")
def test_control_domains_are_beside_the_matrix() -> None:
    assert ApMatrix.of([0, 0xA], [0x1B]).control_domains_text() == ""
    assert ApMatrix.of([], [], [0x1B]).control_domains_text() == "001b\n"
    assert ApMatrix.of([], [], [0x1B]).matrix_text() == ""


@given(matrices)
def test_what_ap_config_shows_can_be_written_back(matrix: ApMatrix) -> None:
    assert ApMatrix.config(matrix.config_text()) == matrix


def test_ap_config_is_three_masks_on_a_line() -> None:
    shown = ApMatrix.of([5], [4, 0x47], []).config_text()

    assert shown == f"0x04{NOTHING[2:]},0x08{14 * '0'}01{46 * '0'},0x{NOTHING}\n"


@pytest.mark.parametrize(
    "text",
    ["0x04,0x08,", "0x04,0x08,0x\n", "0x04,0x08\n", "04,08,x", "0x04\n0x08\n0x", "0x04,0x08,,zz",
     "0x04,0x08,0x\nzz"],
)  # fmt: skip
def test_ap_config_takes_short_masks_and_newlines_for_commas(text: str) -> None:
    assert ApMatrix.config(text) == ApMatrix.of([5], [4])


@pytest.mark.parametrize(
    "text",
    ["", "\n", "0x04", "0x04\n", "0x04,0x08", "0x04,0x08,zz", "0x04, 0x08,0x", "+5,+4,+1",
     f"0x{NOTHING}0,0x,0x"],
)  # fmt: skip
def test_ap_config_wants_three_masks(text: str) -> None:
    with pytest.raises(KernelError) as refused:
        ApMatrix.config(text)

    assert refused.value.errno is Errno.EINVAL


@given(matrices, matrices)
def test_what_two_share_is_what_both_contain(one: ApMatrix, other: ApMatrix) -> None:
    assert set(one.shared(other)) == set(one) & set(other)


@given(matrices, some)
def test_adapters_and_domains_are_taken_away(matrix: ApMatrix, ids: set[int]) -> None:
    mask = ApMask.of(ids)

    assert set(matrix.without_adapters(mask).adapters) == set(matrix.adapters) - ids
    assert set(matrix.without_domains(mask).domains) == set(matrix.domains) - ids

"""Levels of AP virtualization: the filter of IBM's figure 2, and masks nested to any depth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.ap.id import Apqn
from harness.model.ap.levels import effective, eligible, freed
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix

masks = st.builds(ApMask, st.integers(0, 2**256 - 1))
matrices = st.builds(ApMatrix, masks, masks, masks)
few = st.builds(ApMask.of, st.sets(st.integers(0, 255), max_size=4))
small = st.builds(ApMatrix, few, few, few)


@pytest.mark.rule("AP-21")
@given(st.lists(matrices, max_size=7))
def test_a_guest_can_use_what_every_level_has(levels: list[ApMatrix]) -> None:
    left = effective(*levels)

    for number in range(256):
        assert (number in left.adapters) == all(number in one.adapters for one in levels)
        assert (number in left.domains) == all(number in one.domains for one in levels)
        assert (number in left.control_domains) == all(
            number in one.control_domains for one in levels
        )


@pytest.mark.rule("AP-21")
@given(st.lists(matrices, max_size=4), st.lists(matrices, max_size=4))
def test_a_level_below_only_takes_away(above: list[ApMatrix], below: list[ApMatrix]) -> None:
    outer, inner = effective(*above), effective(*above, *below)

    assert inner.adapters <= outer.adapters
    assert inner.domains <= outer.domains
    assert inner == effective(outer, effective(*below))


def test_the_slide_is_one_line() -> None:
    g1, g2 = ApMatrix.of([1, 2], [4]), ApMatrix.of([2, 3], [4, 5])

    assert effective(g1, g2).adapters == g1.adapters & g2.adapters == ApMask.of([2])


@pytest.mark.rule("AP-04", "AP-27")
@given(small, masks, masks, small)
def test_a_queue_passes_lpar_host_and_mediated_device(
    lpar: ApMatrix, apmask: ApMask, aqmask: ApMask, mdev: ApMatrix
) -> None:
    passed = set(eligible(lpar, apmask, aqmask, mdev))

    for apqn in {*lpar, *mdev}:
        host_has_it = apqn.adapter in apmask and apqn.domain in aqmask
        assert (apqn in passed) == (apqn in lpar and not host_has_it and apqn in mdev)


@pytest.mark.rule("AP-04")
def test_one_cleared_bit_of_either_mask_frees_a_queue() -> None:
    lpar = ApMatrix.of([0, 1], [0, 1])
    all_but_1 = ~ApMask.of([1])

    assert freed(ApMask.full(), ApMask.full(), lpar) == ()
    assert freed(all_but_1, ApMask.full(), lpar) == (Apqn(1, 0), Apqn(1, 1))
    assert freed(ApMask.full(), all_but_1, lpar) == (Apqn(0, 1), Apqn(1, 1))
    assert freed(all_but_1, all_but_1, lpar) == (Apqn(0, 1), Apqn(1, 0), Apqn(1, 1))

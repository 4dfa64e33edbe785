"""Sets of options of intel-iommu: which are refused, which are accepted, that all are tried."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.combinations import Strength, missing
from harness.model.version import QemuVersion
from harness.model.vtd.combined import (
    IRQCHIP,
    OPTIONS,
    REASONS,
    Choice,
    Row,
    acceptable,
    any_sets,
    config_of,
    expected_words,
    good_sets,
    reasons,
    told,
)
from harness.model.vtd.expected import Irqchip
from harness.model.vtd.properties import INTEL_IOMMU
from harness.model.vtd.refusals import REFUSALS

NEW = frozenset(names[0].name for names in INTEL_IOMMU.values())
PLAIN: Row = dict.fromkeys(OPTIONS) | {IRQCHIP: Irqchip.SPLIT}
ROWS = st.fixed_dictionaries({name: st.sampled_from(v) for name, v in OPTIONS.items()})


def having(**options: Choice) -> Row:
    return {**PLAIN, **{name.replace("_", "-"): value for name, value in options.items()}}


def test_every_pair_of_values_is_tried() -> None:
    assert not missing(OPTIONS, any_sets(Strength()))


def test_reasons_are_cases() -> None:
    assert {reason.case for reason in REASONS} <= {case.name for case in REFUSALS}


def test_reasons_that_are_about_two_options_are_tried() -> None:
    tried = {reason.case for row in any_sets(Strength()) for reason in reasons(row)}

    assert {reason.case for reason in REASONS if len(reason.needs) == 2} <= tried


def test_accepted_sets_are_accepted_by_every_release() -> None:
    rows = good_sets(Strength())

    assert len(rows) > 10
    for row in rows:
        for version in (QemuVersion(10, 0), QemuVersion(11, 1)):
            assert not expected_words(row, version, NEW, kvm=True)


def test_accepted_sets_have_every_option_both_ways() -> None:
    rows = good_sets(Strength())

    for name, values in OPTIONS.items():
        assert {row[name] for row in rows} == set(values) - {40}


@given(ROWS)
def test_an_accepted_set_has_registers(row: Row) -> None:
    if not acceptable(row):
        return
    config = config_of(row)

    assert config.cap(QemuVersion(11, 1)).value
    assert config.ecap(NEW).value


@given(ROWS, st.sampled_from(list(OPTIONS)))
def test_a_part_of_a_set_is_refused_only_if_the_set_is(row: Row, dropped: str) -> None:
    part = {name: value for name, value in row.items() if name != dropped}

    assert {r.case for r in reasons(part)} <= {r.case for r in reasons(row)}


@pytest.mark.parametrize(
    ("row", "cases"),
    [
        (PLAIN, set()),
        (having(irqchip=Irqchip.ON, intremap=True), {"intremap with a full irqchip"}),
        (having(irqchip=Irqchip.ON, intremap=True, eim=True), {"intremap with a full irqchip"}),
        (having(irqchip=Irqchip.ON, eim=True), {"eim without intremap"}),
        (having(intremap=False, eim=True), {"eim without intremap"}),
        (having(eim=True), set()),
        (having(aw_bits=40), {"aw-bits 40"}),
        (having(aw_bits=40, scalable_mode=True), {"aw-bits 40 in scalable mode"}),
        (having(aw_bits=39, scalable_mode=True, fsts=True), {"aw-bits 39 with a first stage"}),
        (having(aw_bits=48, scalable_mode=True, fsts=True), set()),
        (having(fsts=True), {"first stage outside of scalable mode"}),
        (having(scalable_mode=True, dma_drain=False), {"scalable mode without draining"}),
    ],
    ids=str,
)
def test_reasons_are_those_of_the_options(row: Row, cases: set[str]) -> None:
    assert {reason.case for reason in reasons(row)} == cases


def test_words_are_those_of_the_version() -> None:
    row = having(scalable_mode=True, pasid_bits=20, device_iotlb=True)

    assert expected_words(row, QemuVersion(10, 2), NEW, kvm=True)
    assert not expected_words(row, QemuVersion(11, 0), NEW, kvm=True)


def test_what_a_build_has_not_is_not_said() -> None:
    row = having(pt=False, caching_mode=True)

    assert told(row, {"caching-mode"}) == having(caching_mode=True)
    assert told(row, {"caching-mode", "pt"}) == row


def test_a_set_is_said_by_its_options() -> None:
    assert config_of(having(caching_mode=True)).device_options == {"caching-mode": True}

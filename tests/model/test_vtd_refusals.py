"""What QEMU must refuse, by version and by what the build has."""

from __future__ import annotations

import pytest

from harness.model.version import QemuVersion
from harness.model.vtd_refusals import (
    PROPERTIES,
    REFUSALS,
    RefusalCase,
    counterpart,
    without_caching_mode,
    wrong_properties,
)
from harness.rules import load_rules

EVERYTHING = frozenset(PROPERTIES)


def case(name: str) -> RefusalCase:
    return next(case for case in REFUSALS if case.name == name)


def test_names_are_unique_and_rules_exist() -> None:
    assert len({case.name for case in REFUSALS}) == len(REFUSALS)
    assert {case.rule for case in REFUSALS} <= set(load_rules())


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("PASID with a device TLB", (10, 2), "PASID based device IOTLB is not supported"),
        ("PASID with a device TLB", (11, 0), None),
        ("eim without KVM", (8, 2), "eim=on requires accel=kvm,kernel-irqchip=split"),
        ("eim without KVM", (9, 0), None),
        ("aw-bits 40", (9, 2), "Supported values for aw-bits are: 39, 48"),
        ("aw-bits 40", (10, 0), "Legacy mode: supported values for aw-bits are: 39, 48"),
    ],
)
def test_words_change_with_the_version(
    name: str, version: tuple[int, int], words: str | None
) -> None:
    assert case(name).expected(QemuVersion(*version), EVERYTHING) == words


def test_a_property_that_the_build_lacks_is_refused_as_unknown() -> None:
    first_stage = case("first stage outside of scalable mode")

    assert first_stage.expected(QemuVersion(9, 0), EVERYTHING - {"x-flts"}) == (
        "Property 'intel-iommu.x-flts' not found"
    )


def test_a_full_irqchip_is_refused_under_kvm_only() -> None:
    full = case("intremap with a full irqchip")

    assert full.expected(QemuVersion(10, 0), EVERYTHING, kvm=True)
    assert full.expected(QemuVersion(10, 0), EVERYTHING, kvm=False) is None


@pytest.mark.parametrize("subject", REFUSALS, ids=lambda case: case.name)
def test_every_case_has_a_counterpart_that_ends_the_other_way(subject: RefusalCase) -> None:
    newest = QemuVersion(11, 0)

    assert counterpart(subject, "words").expected(newest, EVERYTHING) is None
    assert counterpart(subject, "words").driver == subject.driver
    assert counterpart(subject, None).name == "refused"


def test_the_words_about_caching_mode_changed_twice() -> None:
    said = [without_caching_mode(QemuVersion(*v)) for v in ((3, 1), (10, 1), (10, 2))]

    assert len(set(said)) == 3
    assert "caching-mode=1" in said[0]


def test_properties_are_judged_by_version() -> None:
    ten = {n for n, (since, until) in PROPERTIES.items()
           if since <= (10, 0) and (until is None or until > (10, 0))}  # fmt: skip

    assert wrong_properties(ten, QemuVersion(10, 0)) == ()
    assert wrong_properties(ten - {"eim"}, QemuVersion(10, 0)) == ("eim is missing",)
    assert "x-flts is there" in wrong_properties(ten, QemuVersion(9, 2))

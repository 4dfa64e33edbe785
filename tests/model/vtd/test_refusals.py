"""What QEMU must refuse, by version and by what the build has."""

from __future__ import annotations

import pytest

from harness.model.version import QemuVersion
from harness.model.vtd.properties import INTEL_IOMMU
from harness.model.vtd.refusals import (
    REFUSALS,
    WITHOUT_CACHING_MODE,
    RefusalCase,
    counterpart,
)
from harness.rules import load_rules

NEW = frozenset(INTEL_IOMMU)
"""The newest names."""

OLD = frozenset(names[-1].name for names in INTEL_IOMMU.values())
"""The oldest names."""


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
        ("aw-bits 39 with a first stage", (10, 0), "Scalable mode(flts=on): supported"),
        ("aw-bits 39 with a first stage", (11, 0), "Scalable mode(x-flts=on): supported"),
        ("first stage outside of scalable mode", (10, 0), "x-flts is only available"),
        ("aw-bits 40", (10, 0), "Legacy mode: supported values for aw-bits are: 39, 48"),
    ],
)
def test_words_change_with_the_version(
    name: str, version: tuple[int, int], words: str | None
) -> None:
    said = case(name).expected(QemuVersion(*version), OLD)

    assert (said is None) == (words is None)
    assert words is None or (said or "").startswith(words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("aw-bits 40 in scalable mode", "Scalable mode(fsts=off): supported"),
        ("aw-bits 39 with a first stage", "Scalable mode(fsts=on): supported"),
        ("first stage outside of scalable mode", "fsts is only available in scalable mode"),
    ],
)
@pytest.mark.parametrize("version", [(11, 0), (11, 1)], ids=str)
def test_words_follow_the_name_that_the_build_has(
    name: str, words: str, version: tuple[int, int]
) -> None:
    assert (case(name).expected(QemuVersion(*version), NEW) or "").startswith(words)


def test_a_case_says_what_the_build_lacks() -> None:
    first_stage = case("first stage outside of scalable mode")

    assert first_stage.lacking(OLD) == first_stage.lacking(NEW) == ""
    assert "QEMU 10.0 and later" in first_stage.lacking(OLD - {"x-flts"})


def test_only_the_case_about_it_asks_for_a_property_that_no_build_has() -> None:
    unknown = [case for case in REFUSALS if case.unknown]

    assert [case.rule for case in unknown] == ["VTD-27"]
    assert unknown[0].arguments(NEW) == {"no-such-property": True}
    assert unknown[0].lacking(NEW) == ""


def test_arguments_are_said_as_the_build_says_them() -> None:
    pasid = case("PASID with a device TLB")

    assert pasid.arguments(OLD) == {
        "x-scalable-mode": True, "x-pasid-mode": True, "device-iotlb": True,
    }  # fmt: skip
    assert pasid.arguments(NEW)["pasid-bits"] == 20


def test_a_full_irqchip_is_refused_under_kvm_only() -> None:
    full = case("intremap with a full irqchip")

    assert full.expected(QemuVersion(10, 0), NEW, kvm=True)
    assert full.expected(QemuVersion(10, 0), NEW, kvm=False) is None


@pytest.mark.parametrize("subject", REFUSALS, ids=lambda case: case.name)
def test_every_case_has_a_counterpart_that_ends_the_other_way(subject: RefusalCase) -> None:
    newest = QemuVersion(11, 0)

    assert counterpart(subject, "words").expected(newest, NEW) is None
    assert counterpart(subject, "words").driver == subject.driver
    assert counterpart(subject, None).name == "refused"


@pytest.mark.parametrize("version", [(3, 1), (10, 1), (10, 2), (11, 1)], ids=str)
def test_each_version_refuses_assignment_by_one_rule(version: tuple[int, int]) -> None:
    said = [r.rule for r in WITHOUT_CACHING_MODE if r.expected(QemuVersion(*version))]

    assert said == ["VTD-18" if version >= (10, 2) else "VTD-17"]


def test_the_words_about_caching_mode_changed_with_the_switch() -> None:
    old = WITHOUT_CACHING_MODE[0]

    assert "caching-mode=1 " in (old.expected(QemuVersion(3, 1)) or "")
    assert "caching-mode=on " in (old.expected(QemuVersion(4, 0)) or "")
    assert old.expected(QemuVersion(2, 9)) is None
    assert old.builds == "QEMU 2.10 and later, before 10.2"
    assert WITHOUT_CACHING_MODE[1].builds == "QEMU 10.2 and later"

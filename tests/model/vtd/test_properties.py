"""How builds call the properties of intel-iommu, and what they lack."""

from __future__ import annotations

import pytest

from harness.model.version import QemuVersion
from harness.model.vtd.properties import (
    INTEL_IOMMU,
    arguments,
    lacking,
    spelling,
    wrong_properties,
)

SEEN = {
    (10, 0): frozenset(
        [
            "aw-bits",
            "caching-mode",
            "device-iotlb",
            "dma-drain",
            "dma-translation",
            "eim",
            "fs1gp",
            "intremap",
            "pt",
            "snoop-control",
            "stale-tm",
            "version",
            "x-buggy-eim",
            "x-flts",
            "x-pasid-mode",
            "x-scalable-mode",
        ]
    ),
    (11, 1): frozenset(
        [
            "aw-bits",
            "caching-mode",
            "device-iotlb",
            "dma-translation",
            "eim",
            "fs1gp",
            "fsts",
            "intremap",
            "pasid-bits",
            "scalable-mode",
            "snoop-control",
            "stale-tm",
            "svm",
            "version",
        ]
    ),
}  # fmt: skip
"""As observed on 10.0.13 and 11.1.3."""

EACH = pytest.mark.parametrize("release", SEEN, ids=str)


@EACH
def test_what_was_seen_is_right_for_its_version(release: tuple[int, int]) -> None:
    assert wrong_properties(SEEN[release], QemuVersion(*release, 3)) == ()


@EACH
def test_what_was_seen_is_wrong_for_the_other_version(release: tuple[int, int]) -> None:
    (other,) = SEEN.keys() - {release}

    wrong = wrong_properties(SEEN[other], QemuVersion(*release))

    assert {w.split()[0] for w in wrong} == (SEEN[release] ^ SEEN[other])


@EACH
def test_a_missing_property_is_told(release: tuple[int, int]) -> None:
    assert wrong_properties(SEEN[release] - {"eim"}, QemuVersion(*release)) == ("eim is missing",)


@pytest.mark.parametrize("version", [QemuVersion(11, 0), QemuVersion(11, 0, 50)], ids=str)
def test_a_release_nobody_saw_has_either_name(version: QemuVersion) -> None:
    old = SEEN[10, 0] - {"x-buggy-eim"} | {"svm"}

    assert wrong_properties(old, version) == ()
    assert wrong_properties(SEEN[11, 1], version) == ()
    assert wrong_properties(old - {"x-flts"}, version) == ("fsts or x-flts is missing",)


def test_options_are_said_as_the_build_says_them() -> None:
    options = {"scalable-mode": True, "fsts": True, "pasid-bits": 20, "aw-bits": 48}

    assert arguments("intel-iommu", options, SEEN[11, 1]) == options
    assert arguments("intel-iommu", options, SEEN[10, 0]) == {
        "x-scalable-mode": True, "x-flts": True, "x-pasid-mode": True, "aw-bits": 48,
    }  # fmt: skip


def test_what_a_build_lacks_is_told_with_the_builds_that_have_it() -> None:
    options = {"dma-drain": False, "caching-mode": True}

    assert lacking("intel-iommu", options, SEEN[10, 0]) == ""
    assert lacking("intel-iommu", options, SEEN[11, 1]) == (
        "intel-iommu has no property dma-drain (QEMU 4.0 and later, before 11.1)"
    )
    assert lacking("intel-iommu", {"fsts": True}, frozenset()) == (
        "intel-iommu has no property fsts (QEMU 11.1 and later)"
        " or x-flts (QEMU 10.0 and later, before 11.1)"
    )


def test_an_option_that_is_not_in_the_table_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        spelling("intel-iommu", "no-such-property", SEEN[11, 1])


def test_names_are_unique_and_newest_first() -> None:
    names = [s.name for spellings in INTEL_IOMMU.values() for s in spellings]

    assert len(set(names)) == len(names)
    assert all(key == spellings[0].name for key, spellings in INTEL_IOMMU.items())

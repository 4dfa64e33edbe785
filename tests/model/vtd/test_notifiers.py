"""What IOMMUs say to vhost and vfio, by version and by what the build has."""

from __future__ import annotations

import pytest

from harness.model.version import QemuVersion
from harness.model.vtd.notifiers import FIRST_STAGE, VHOST_CASES, VhostCase, other_way
from harness.rules import load_rules

NEW = QemuVersion(11, 1)


def test_names_are_unique_and_rules_exist() -> None:
    assert len({case.name for case in VHOST_CASES}) == len(VHOST_CASES)
    assert {case.rule for case in (*VHOST_CASES, FIRST_STAGE)} <= set(load_rules())


@pytest.mark.parametrize("case", VHOST_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("version", [QemuVersion(8, 0), NEW], ids=str)
def test_each_case_has_one_that_ends_the_other_way(case: VhostCase, version: QemuVersion) -> None:
    other = other_way(case, version)

    assert other.driver == case.driver
    assert (other.expected(version) is None) != (case.expected(version) is None)


@pytest.mark.parametrize(
    ("version", "properties", "words"),
    [
        (QemuVersion(10, 2), {"x-flts"}, "host device is uncompatible"),
        (QemuVersion(11, 0), {"x-flts"}, "Need IOMMUFD backend when x-flts=on"),
        (NEW, {"fsts"}, "Need IOMMUFD backend when fsts=on"),
    ],
    ids=str,
)
def test_words_about_the_first_stage_change(
    version: QemuVersion, properties: set[str], words: str
) -> None:
    assert (FIRST_STAGE.expected(version, properties) or "").startswith(words)


def test_options_are_said_as_the_build_calls_them() -> None:
    case = next(case for case in VHOST_CASES if case.driver == "virtio-iommu-pci")

    assert case.arguments({"boot-bypass"}) == {"boot-bypass": False}
    assert not case.lacking({"boot-bypass"})


def test_an_option_that_the_build_has_not_is_told() -> None:
    case = next(case for case in VHOST_CASES if "snoop-control" in case.options)

    assert "snoop-control" in case.lacking(set())

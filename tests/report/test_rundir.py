"""The directory of a run and the names in it."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ConfigError
from harness.report.rundir import RunDirectory, check_base, evidence_name, latest

NOW = datetime(2026, 11, 21, 3, 4, 5)


def test_a_run_has_a_name_that_sorts_and_latest_points_to_it(tmp_path: Path) -> None:
    first = RunDirectory.create(tmp_path / "results", NOW)
    second = RunDirectory.create(tmp_path / "results", NOW)

    assert re.fullmatch(r"20261121-030405-[0-9a-f]{4}", first.path.name)
    assert first.path != second.path
    second.become_latest()

    assert latest(tmp_path / "results") == second
    assert not (tmp_path / "results/latest").readlink().is_absolute()


def test_a_place_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()

    for attempt in (check_base, lambda base: RunDirectory.create(base, NOW)):
        with pytest.raises(ConfigError, match="results cannot be kept in"):
            attempt(tmp_path / "a-file")


def test_a_place_that_is_good_keeps_nothing_of_the_trial(tmp_path: Path) -> None:
    check_base(tmp_path / "new/results")

    assert list((tmp_path / "new/results").iterdir()) == []


def test_a_directory_called_latest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()

    RunDirectory.create(tmp_path, NOW)

    assert not (tmp_path / "latest").is_symlink()


def test_there_may_be_no_run_yet(tmp_path: Path) -> None:
    assert latest(tmp_path) is None


def test_names_that_sanitise_to_the_same_stay_apart() -> None:
    assert evidence_name("a/test_x.py::t[a/b]") != evidence_name("a/test_x.py::t[a:b]")
    assert evidence_name("a/test_x.py::t") != evidence_name("b/test_x.py::t")


def test_a_name_can_be_recognised() -> None:
    name = evidence_name("suites/vfio_pci/test_msix.py::test_table_is_trapped[0000:3b:00.1]")

    assert name.startswith("test_msix-test_table_is_trapped-0000-3b-00.1-")


@given(st.text(min_size=1))
def test_every_node_id_gives_a_short_plain_name(nodeid: str) -> None:
    name = evidence_name(nodeid)

    assert re.fullmatch(r"[A-Za-z0-9._-]{9,90}", name)
    assert name not in (".", "..")

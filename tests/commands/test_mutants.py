"""``trapline mutants``, with builds and runs that are played."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.commands import mutants as work
from harness.commands.mutants import MutantsOutcome, MutantsRequest, run_mutants
from harness.errors import ConfigError, HarnessError, ImageError
from harness.images import qemu_mutant
from harness.images.qemu_build import QemuBuild
from harness.images.workshop import Workshop
from harness.model.rule import Verdict
from harness.model.version import QemuVersion
from harness.report.mutant_judge import Judgement, Notice
from harness.report.results import Result


@dataclass
class Played:
    """Builds that are never made, runs that are never done."""

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    runs: list[tuple[str, tuple[str, ...], str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    version = QemuVersion(10, 0, 13)

    def resolve(self, spec: str, _: Workshop) -> Played:
        if spec in self.refused:
            raise ImageError(f"{spec} does not compile")
        return self

    def run(self, qemu: str, selection: Sequence[str], place: Path) -> list[Result]:
        self.runs.append((qemu, tuple(selection), place.name))
        verdict = self.verdicts.get(qemu, Verdict.PASS)
        return [Result("suites/a.py::t", verdict, 1.0, rules=("MAP-02",), message="seen")]


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    one = Played()
    monkeypatch.setattr(work, "require_packages", lambda: None)
    monkeypatch.setattr(QemuBuild, "resolve", one.resolve)
    monkeypatch.setattr(qemu_mutant, "mutants_dir", lambda: tmp_path)
    for name, selection in {"first": '"a", "b"', "second": '"b"'}.items():
        (tmp_path / f"{name}.toml").write_text(
            f'breaks = "{name}"\nrules = ["MAP-02"]\nselection = [{selection}]\n'
        )
        (tmp_path / f"{name}.patch").write_text("--- a/x.c\n+++ b/x.c\n")
    return one


def go(played: Played, tmp_path: Path, *names: str) -> MutantsOutcome:
    request = MutantsRequest(names, results=tmp_path)
    return run_mutants(request, Workshop(), played.said.append, played.run)


def test_the_unbroken_build_comes_first_and_runs_what_all_run(
    played: Played, tmp_path: Path
) -> None:
    played.verdicts = {"mutant:first": Verdict.FAIL, "mutant:second": Verdict.FAIL}

    outcome = go(played, tmp_path)

    assert outcome.is_fine
    assert played.runs == [
        ("source:trixie", ("a", "b"), "baseline"),
        ("mutant:first", ("a", "b"), "first"),
        ("mutant:second", ("b",), "second"),
    ]
    assert outcome.qemu == "source:trixie 10.0.13"


def test_only_mutants_that_are_named_are_run(played: Played, tmp_path: Path) -> None:
    outcome = go(played, tmp_path, "second")

    assert [one.name for one in outcome.judgements] == ["second"]
    assert not outcome.is_fine
    assert outcome.lines()[1] == "  second  NOT NOTICED, not by MAP-02"


def test_an_unknown_mutant_is_refused_before_anything_is_built(
    played: Played, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="there are: first, second"):
        go(played, tmp_path, "third")

    assert not played.runs


def test_no_mutant_is_judged_if_the_unbroken_build_fails(played: Played, tmp_path: Path) -> None:
    played.verdicts = {"source:trixie": Verdict.FAIL}

    with pytest.raises(HarnessError, match="the unbroken QEMU does not pass"):
        go(played, tmp_path)

    assert [qemu for qemu, _, _ in played.runs] == ["source:trixie"]


def test_a_mutant_that_does_not_compile_does_not_stop_the_others(
    played: Played, tmp_path: Path
) -> None:
    played.refused = ("mutant:first",)
    played.verdicts = {"mutant:second": Verdict.FAIL}

    outcome = go(played, tmp_path)

    assert [one.notice for one in outcome.judgements] == [Notice.ERROR, Notice.NOTICED]
    assert "does not compile" in outcome.judgements[0].message
    assert any("first: error" in line for line in played.said)


def test_json_has_what_each_mutant_changes_and_who_noticed(played: Played, tmp_path: Path) -> None:
    played.verdicts = {"mutant:first": Verdict.FAIL}

    found = json.loads(go(played, tmp_path, "first").to_json())["mutants"]

    assert [(one["name"], one["notice"], one["tripped"], one["files"]) for one in found] == [
        ("first", "noticed", ["MAP-02"], ["x.c"])
    ]


def test_the_list_says_what_each_breaks(played: Played) -> None:
    assert work.listing()[:2] == ["first  (x.c; MAP-02)", "    first"]


def test_what_a_mutant_that_was_missed_said_is_in_the_table() -> None:
    missed = Judgement("it", Notice.ELSEWHERE, others=("MAP-01",), message="two rows")

    assert MutantsOutcome("q", (missed,)).lines()[1:3] == [
        "  it  noticed by other rules only (and MAP-01)",
        "        two rows",
    ]

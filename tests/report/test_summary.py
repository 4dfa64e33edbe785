"""The mail text of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import ParseError
from harness.model.rule import Verdict
from harness.report.results import Result
from harness.report.summary import RunFacts, count, read_facts, summarise

RUN = Path("/r/20261121-030405-abcd")
FACTS = RunFacts(
    began="2026-11-21T03:04:05+00:00",
    seconds=61.4,
    host="box (x86_64, Linux 6.12)",
    command=("suites",),
    exit_status=1,
    settings={"qemu": "./q", "guest_kernel": "", "kernel": "debian:trixie"},
    subject={"qemu": "10.0.2 (./q)", "accelerator": "tcg: /dev/kvm is not there"},
    versions={"trapline": "0.1.0"},
    rerun_options=("--qemu=./q",),
)
RESULTS = [
    Result("suites/a.py::good", Verdict.PASS, 1.0, rules=("MAP-01",)),
    Result(
        "suites/a.py::bad[x y]",
        Verdict.FAIL,
        1.0,
        rules=("MAP-02",),
        properties={"requirement": "Tables trap.", "evidence": str(RUN / "tests/bad-1")},
        message="page 3 is direct\nmore",
    ),
    Result("suites/a.py::broken", Verdict.ERROR, 1.0, message="HostError: no host"),
    Result("suites/a.py::off", Verdict.SKIP, 0.0, message="no iommu"),
]


def test_the_four_verdicts_are_counted_apart() -> None:
    assert count(RESULTS) == {"pass": 1, "fail": 1, "error": 1, "skip": 1}
    assert count([]) == {"pass": 0, "fail": 0, "error": 0, "skip": 0}


def test_the_summary_says_what_where_on_what_and_what_broke() -> None:
    assert summarise(RESULTS, FACTS, RUN).splitlines() == [
        "trapline 0.1.0: 1 pass, 1 fail, 1 error, 1 skip",
        "",
        "date:           2026-11-21T03:04:05+00:00",
        "took:           61 s",
        "run on:         box (x86_64, Linux 6.12)",
        "qemu:           10.0.2 (./q)",
        "accelerator:    tcg: /dev/kvm is not there",
        "kernel:         debian:trixie (asked for)",
        "results:        /r/20261121-030405-abcd",
        "",
        "Failures (1)",
        "",
        "  FAIL suites/a.py::bad[x y] [MAP-02]",
        "    requires: Tables trap.",
        "    said:     page 3 is direct",
        "    evidence: tests/bad-1",
        "    again:    trapline run --qemu=./q 'suites/a.py::bad[x y]'",
        "",
        "Errors (1)",
        "",
        "  ERROR suites/a.py::broken [no rule]",
        "    said:     HostError: no host",
        "    again:    trapline run --qemu=./q suites/a.py::broken",
        "",
        "Skipped",
        "     1 x no iommu",
    ]


def test_results_that_stand_on_a_model_are_counted_by_their_label() -> None:
    label = {"label": "kernel real, adapters modelled"}
    results = [
        Result("suites/a.py::one", Verdict.PASS, 1.0, properties=label),
        Result("suites/a.py::two", Verdict.FAIL, 1.0, properties=label, message="no"),
        *RESULTS,
    ]

    lines = summarise(results, FACTS, RUN).splitlines()

    assert lines[lines.index("Qualified") + 1] == "     2 x kernel real, adapters modelled"
    assert "    label:    kernel real, adapters modelled" in lines


def test_facts_survive_their_file(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(FACTS.to_json())

    found = read_facts(tmp_path / "run.json")

    assert found["subject"] == dict(FACTS.subject)
    assert found["command"] == ["suites"]
    assert json.loads(FACTS.to_json()) == found


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_facts_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)

    with pytest.raises(ParseError):
        read_facts(tmp_path / "run.json")

"""The JSON of a bench: it says what docs/bench.md says, and can be read again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pydantic
import pytest
from rich.console import Console

from harness.bench.model import Asked, Benchmark, Measure, Role, Subject
from harness.bench.result import SCHEMA, Computer, Report
from harness.bench.runner import measure
from harness.bench.show import Progress, as_text, quantity

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def report(tmp_path: Path) -> Report:
    benchmark = Benchmark(
        "made",
        "made up",
        (Measure("time"), Measure("rate", "MB/s", more_is_better=True)),
        (
            Subject("ours", Role.OURS, lambda _: {"time": 2.0, "rate": 8.0}),
            Subject("by hand", Role.FLOOR, lambda _: {"time": 1.0}),
            Subject.absent("peer", Role.PEER, "add --against peer"),
        ),
        (
            Asked("at most 3 s", "time", "ours", 3),
            Asked("as fast as by hand", "time", "ours", 1.1, over="by hand"),
            Asked("faster than peer", "time", "ours", 1, over="peer"),
        ),
        ("made up",),
    )
    return Report(
        when="2026-11-21T10:00:00+00:00",
        computer=Computer(
            cores=2, memory=2**34, kernel="6.1", processor="x", load_before=0, load_after=1
        ),
        subjects={"lab QEMU": "10.0"},
        benchmarks=(measure(benchmark, rounds=3, evidence=tmp_path),),
        directory=str(tmp_path),
    )


def test_the_json_names_its_schema_and_can_be_read_again(report: Report) -> None:
    text = report.to_json()

    assert json.loads(text)["schema"] == SCHEMA
    assert Report.model_validate_json(text) == report


def test_every_field_is_documented() -> None:
    document = (ROOT / "docs/bench.md").read_text()
    schema = Report.model_json_schema()
    fields = {
        name
        for model in (schema, *schema["$defs"].values())
        for name in model.get("properties", {})
    }

    assert sorted(name for name in fields if not re.search(rf"`{name}`", document)) == []


def test_a_field_that_is_not_known_is_refused(report: Report) -> None:
    changed = json.loads(report.to_json()) | {"guess": 1}

    with pytest.raises(pydantic.ValidationError, match="guess"):
        Report.model_validate(changed)


def test_the_text_has_figures_floors_demands_and_reasons(report: Report) -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in as_text(report):
        console.print(part)

    text = console.export_text()
    for line in (
        r"^  ours +ours +2\.00 s +2\.00 s … 2\.00 s +3",
        r"^  by hand +floor +1\.00 s .* +3 +2 +2 … 2",
        r"^met +asked: at most 3 s; measured: 2 ≤ 3",
        r"^MISSED +asked: as fast as by hand; measured: 2 ≤ 1\.1",
        r"^not measured asked: faster than peer \(peer: add --against peer\)",
        r"^peer: not measured: add --against peer",
    ):
        assert re.search(line, text, re.M), f"{line} not in\n{text}"


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.0000012, "s", "1.2 µs"),
        (0.0804, "s", "80.4 ms"),
        (0.9996, "s", "1.00 s"),
        (6.449, "s", "6.45 s"),
        (125.4, "s", "125 s"),
        (94_371_840, "B", "94.4 MB"),
        (12, "B", "12 B"),
        (5.586, "MB/s", "5.59 MB/s"),
    ],
)
def test_quantities_have_three_digits_and_a_fitting_unit(
    value: float, unit: str, said: str
) -> None:
    assert quantity(value, unit) == said


def test_progress_says_what_is_measured_and_what_came_out(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    with lines.open("w") as stream:
        progress = Progress(Console(file=stream, width=100))
        measure(
            Benchmark(
                "made", "made up", (Measure("time"),),
                (Subject("ours", Role.OURS, lambda _: {"time": 2.0}),),
            ),
            rounds=2, evidence=tmp_path, observer=progress,
        )  # fmt: skip
        progress.stop()

    assert lines.read_text().splitlines() == [
        "made: made up",
        "  round 1/2  ours: time 2.00 s",
        "  round 2/2  ours: time 2.00 s",
    ]

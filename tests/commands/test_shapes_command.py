"""``trapline shapes``: what it writes and says, with chunks that are made up."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from harness import process
from harness.cli import app
from harness.commands import mutate_oracle, shapes
from harness.commands.shapes import Outcome, ShapesRequest, run_shapes
from harness.errors import ConfigError
from harness.model.version import QemuVersion
from harness.shapes.mutants import mutants
from harness.shapes.notice import Notice
from harness.shapes.pool import Plan
from harness.shapes.run import ChunkResult, Failure
from harness.shapes.shape import Shape
from harness.shapes.shape_json import read_shapes

PROBLEM = "after step 1 of 1:\n[MAP-02] BAR 0 at 0-fff: type: expected i/o, found ramd"
FAILURE = Failure((Shape(msi=1),), "MAP-02", PROBLEM, "a picture", 2, 3)


class FakeBuild:
    label, version = "fake", QemuVersion(11, 1, 3)


class FakeJudge:
    def __init__(self, *results: ChunkResult) -> None:
        self._results = results

    def results(self, plan: Plan) -> Iterator[ChunkResult]:
        yield from self._results


def chunk(number: int, **more: Any) -> ChunkResult:
    values = {"shapes": 48, "maps": 80, "refused": 4, "seconds": 1.2, "floor": 0.05} | more
    return ChunkResult(number, **values)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ChunkResult]]:
    """The results that a run gets, whatever is asked for."""
    results: list[ChunkResult] = []
    monkeypatch.setattr(shapes, "default_build", lambda qemu: FakeBuild())
    monkeypatch.setattr(shapes, "Here", lambda build, seed: FakeJudge(*results))
    monkeypatch.setattr(process, "stop_like_ctrl_c", lambda: None)
    monkeypatch.setattr(shapes, "keep_files_in_cache", lambda: None)
    yield results


def run(tmp_path: Path, **more: Any) -> Outcome:
    request = ShapesRequest(count=96, seed=7, results=tmp_path, **more)
    return run_shapes(request, Console(quiet=True))


def test_all_that_agree_are_counted(tmp_path: Path, judged: list[ChunkResult]) -> None:
    judged += [chunk(0), chunk(1, known={"docs/x.md": 2})]

    outcome = run(tmp_path)

    assert outcome.lines()[:4] == [
        "96 shapes, seed 7, fake 11.1.3 (device modelled (vfio-user), QEMU real)",
        "  agree     94, of them refused as they must be 8; 160 maps compared",
        "  known     2: docs/x.md",
        "  disagree  0",
    ]
    assert "40.0 a second and process (1); a shape takes 25 ms" in outcome.lines()[4]
    assert "0.50 of that floor" in outcome.lines()[4]
    summary = json.loads((outcome.directory / "summary.json").read_text())
    assert (summary["seed"], summary["shapes"], summary["disagree"]) == (7, 96, 0)
    assert (tmp_path / "shapes" / "latest" / "summary.txt").is_file()


def test_a_disagreement_is_saved_to_be_seen_again(
    tmp_path: Path, judged: list[ChunkResult]
) -> None:
    judged += [chunk(0, failures=(FAILURE,))]

    outcome = run(tmp_path)

    file = read_shapes(outcome.directory / "01-MAP-02.json")
    assert file.shapes == FAILURE.shapes
    assert "seed 7, chunk 2" in file.title and file.found == PROBLEM
    assert (outcome.directory / "01-MAP-02.txt").read_text() == "a picture"
    assert any("01-MAP-02.json: 3 x [MAP-02] BAR 0" in line for line in outcome.lines())
    assert "  agree     45, of" in "\n".join(outcome.lines())


def test_what_is_known_so_far_is_written_when_a_run_breaks_off(
    tmp_path: Path, judged: list[ChunkResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(FakeJudge):
        def results(self, plan: Plan) -> Iterator[ChunkResult]:
            yield chunk(0, failures=(FAILURE,))
            raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "Here", lambda build, seed: Breaks())

    said = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        run_shapes(ShapesRequest(seed=7, results=tmp_path), Console(file=said))
    assert "interrupted; until then:\n48 shapes, seed 7" in said.getvalue()
    assert (tmp_path / "shapes" / "latest" / "01-MAP-02.json").is_file()


def test_a_disagreement_is_exit_status_1(tmp_path: Path, judged: list[ChunkResult]) -> None:
    words = ["shapes", "--count", "48", "--seed", "7", "--results", str(tmp_path)]

    assert CliRunner().invoke(app, words).exit_code == 0
    judged += [chunk(0, failures=(FAILURE,))]
    failed = CliRunner().invoke(app, words)

    assert failed.exit_code == 1
    assert "a picture" in failed.stdout


def test_a_file_that_is_no_shape_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")

    with pytest.raises(ConfigError, match=r"x\.json is no file of shapes"):
        list(shapes.replay([tmp_path / "x.json"], None))


def test_a_shape_that_fits_into_no_machine_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "default_build", lambda qemu: FakeBuild())
    monkeypatch.setattr(process, "stop_like_ctrl_c", lambda: None)
    put = {"put": 0, "at": "0x0"}
    bar = {"index": 0, "kind": "mem32", "size": "0x80000000"}
    text = {"format": 1, "shapes": [{"bars": [bar], "steps": [[put]]}]}
    (tmp_path / "x.json").write_text(json.dumps(text))

    with pytest.raises(ConfigError, match="shape 1 fits into no machine"):
        list(shapes.replay([tmp_path / "x.json"], None))


def test_an_oracle_without_a_rule_that_nobody_misses_is_exit_status_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = mutants()[:2]
    found = [Notice(first, 1.25, 16, "[MAP-01] …")]
    monkeypatch.setattr(mutate_oracle, "default_build", lambda qemu: FakeBuild())
    monkeypatch.setattr(mutate_oracle, "keep_files_in_cache", lambda: None)
    monkeypatch.setattr(process, "stop_like_ctrl_c", lambda: None)
    monkeypatch.setattr(mutate_oracle, "notices", lambda *_: iter(found))

    noticed = CliRunner().invoke(app, ["shapes", "--mutate-oracle"])
    found.append(Notice(second, 60, 900, ""))
    missed = CliRunner().invoke(app, ["shapes", "--mutate-oracle"])

    assert noticed.exit_code == 0
    assert "1 mutants, 0 not noticed, the slowest after 1.2 s" in noticed.stdout
    assert "QRK-01  vfio-pci alone" in noticed.stdout
    assert missed.exit_code == 1
    assert "NOT NOTICED in 60 s, 900 shapes" in missed.stdout

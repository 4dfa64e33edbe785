"""``trapline matrix``, with runs that are played."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.commands import matrix as work
from harness.commands.matrix import MatrixRequest, run_matrix, stamps
from harness.commands.places import Places
from harness.errors import ConfigError, HarnessError
from harness.report.matrix import NOT_RUN, Matrix
from harness.spread.memory import NAME as DURATIONS

MakeRun = Callable[..., Path]
TEST = "suites/a.py::t"
FOUR = MatrixRequest(qemus=("debian:trixie", "debian:sid"), kernels=("debian:trixie", "built:7.3"))


@dataclass
class Played:
    """Runs that are never done: what each prints is written as if it had been."""

    make_run: MakeRun
    here: Path
    tests: dict[tuple[str, str], Sequence[Mapping[str, str]]] = field(default_factory=dict)
    """For a QEMU and a kernel, what its runs say, one after the other; else all is well."""
    broken: tuple[str, ...] = ()
    """QEMUs with which no run comes about."""
    stop_at: int = 0
    """At this run, Ctrl-C comes."""
    exit_status: int = 0
    runs: list[tuple[str, str]] = field(default_factory=list)
    arguments: list[Sequence[str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def run(self, arguments: Sequence[str], directory: Path, label: str) -> int:
        options = dict(word.split("=", 1) for word in arguments if "=" in word)
        pair = options["--qemu"], options["--kernel"]
        self.runs.append(pair)
        self.arguments.append(arguments)
        if len(self.runs) == self.stop_at:
            raise KeyboardInterrupt
        if pair[0] in self.broken:
            return 4
        turn = self.runs.count(pair) - 1
        said = self.tests.get(pair, [{TEST: "pass"}])
        run = directory / f"20261121-0{len(self.runs)}"
        self.make_run(
            run, said[min(turn, len(said) - 1)], exit_status=self.exit_status, seconds=61.2
        )
        (directory / "latest").unlink(missing_ok=True)
        (directory / "latest").symlink_to(run.name)
        return self.exit_status

    def go(self, request: MatrixRequest = FOUR, **options: bool) -> Matrix:
        return run_matrix(request, self.said.append, self.run, **options)


@pytest.fixture
def played(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    (tmp_path / "suites/mtree").mkdir(parents=True)
    places = Places(tmp_path, tmp_path / "results", is_checkout=True)
    monkeypatch.setattr(Places, "find", classmethod(lambda _: places))
    monkeypatch.chdir(tmp_path)
    return Played(make_run, tmp_path)


def test_every_qemu_runs_with_every_kernel(played: Played) -> None:
    found = played.go()

    assert played.runs == [
        ("debian:trixie", "debian:trixie"),
        ("debian:trixie", "built:7.3"),
        ("debian:sid", "debian:trixie"),
        ("debian:sid", "built:7.3"),
    ]
    assert [one.name for one in found.runs] == ["A", "B", "C", "D"]
    assert found.is_fine


def test_all_cells_run_once_before_any_runs_twice(played: Played) -> None:
    request = MatrixRequest(qemus=FOUR.qemus, times=2)

    found = played.go(request)

    assert [qemu for qemu, _ in played.runs] == [*FOUR.qemus, *FOUR.qemus]
    assert [one.name for one in found.runs] == ["A1", "A2", "B1", "B2"]
    assert len({one.directory for one in found.runs}) == 4


def test_a_run_is_asked_for_what_the_matrix_is_asked_for(played: Played) -> None:
    played.go(
        MatrixRequest(
            selection=("mtree", "MAP-02"), qemus=("system",), kernels=("debian:sid",),
            guest_kernel="debian:sid", keyword="bar", full=True, workers="auto",
            results=Path("res"),
        )
    )  # fmt: skip

    *arguments, results = played.arguments[0]
    assert arguments == [
        "run", "mtree", "MAP-02", "--qemu=system", "--kernel=debian:sid",
        "--guest-kernel", "debian:sid", "-k", "bar", "--full", "-n", "auto",
    ]  # fmt: skip
    assert results.startswith(f"--results={played.here}/res/system+debian-sid-")


def test_without_a_spec_the_one_of_the_settings_counts(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAPLINE_QEMU", "debian:sid")

    played.go(MatrixRequest())

    assert played.runs == [("debian:sid", "debian:trixie")]


def test_a_cell_that_fails_does_not_stop_the_others(played: Played) -> None:
    played.tests["debian:trixie", "built:7.3"] = [{TEST: "fail: row 3"}]
    played.broken = ("debian:sid",)

    found = played.go()

    assert len(played.runs) == 4
    assert [one.is_green for one in found.runs] == [True, False, False, False]
    assert found.runs[2].problem == "no run came about (exit status 4)"
    assert not found.is_fine


def test_a_program_that_cannot_be_started_does_not_stop_the_others(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise HarnessError("no more processes", seen="limit 5")

    found = run_matrix(FOUR, played.said.append, broken)

    assert {one.problem for one in found.runs} == {"no more processes"}


def test_what_is_done_is_not_run_again_unless_asked_for(played: Played) -> None:
    first = played.go()
    again = played.go()

    assert len(played.runs) == 4
    assert all(one.is_kept for one in again.runs)
    assert [one.counts for one in again.runs] == [one.counts for one in first.runs]
    assert again.is_fine
    played.go(again=True)
    assert len(played.runs) == 8


def test_a_failed_cell_is_done_too_a_broken_or_interrupted_one_is_not(played: Played) -> None:
    played.tests["debian:trixie", "built:7.3"] = [{TEST: "fail: row 3"}]
    played.broken = ("debian:sid",)
    played.go()
    played.runs.clear()

    played.go()

    assert played.runs == [("debian:sid", "debian:trixie"), ("debian:sid", "built:7.3")]
    played.broken, played.exit_status = (), 2
    partial = played.go()
    assert [one.problem for one in partial.runs[2:]] == ["interrupted (exit status 2)"] * 2
    assert len(played.go().runs) == 4
    assert len(played.runs) == 6


def test_ctrl_c_leaves_what_was_done_and_the_same_line_goes_on(played: Played) -> None:
    played.stop_at = 3

    found = played.go()

    assert found.is_interrupted and not found.is_fine
    assert [one.problem for one in found.runs] == ["", "", "interrupted", NOT_RUN]
    assert played.go().is_fine
    assert len(played.runs) == 5


def test_asked_to_begin_again_and_interrupted_it_does_not_take_old_for_new(
    played: Played,
) -> None:
    played.go()
    played.stop_at = len(played.runs) + 2
    played.go(again=True)

    found = played.go()

    assert [one.is_kept for one in found.runs] == [True, False, False, False]


def test_a_build_that_changed_is_judged_again(played: Played) -> None:
    build = played.here / "build/qemu-system-x86_64"
    build.parent.mkdir()
    build.write_text("one")
    request = MatrixRequest(qemus=("build",))
    played.go(request)
    played.go(request)
    assert len(played.runs) == 1

    build.write_text("another")

    played.go(request)
    assert len(played.runs) == 2


def test_another_question_is_another_cell(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    one = MatrixRequest(qemus=("system",))
    played.go(one)
    played.go(MatrixRequest(qemus=("system",), full=True))
    played.go(MatrixRequest(qemus=("system",), selection=("mtree",)))
    monkeypatch.setenv("TRAPLINE_HOST", "local")
    played.go(one)

    assert len(played.runs) == 4


def test_to_show_nothing_is_run_and_nothing_forgotten(played: Played) -> None:
    assert [one.problem for one in played.go(only_show=True).runs] == [NOT_RUN] * 4
    played.go()

    assert played.go(only_show=True, again=True).is_fine
    assert len(played.runs) == 4


def test_a_damaged_note_of_what_is_done_is_no_note(played: Played) -> None:
    for text in ("{", "[]", "{}", '{"run": "gone", "stamps": {}}'):
        found = played.go(MatrixRequest())
        (found.runs[0].directory / work.DONE).write_text(text)

    assert len(played.runs) == 4


def test_a_cell_is_spread_by_what_others_took(played: Played) -> None:
    usual = played.here / "results" / DURATIONS
    usual.parent.mkdir()
    usual.write_text("known")

    found = played.go()

    assert [(one.directory / DURATIONS).read_text() for one in found.runs] == ["known"] * 4
    (found.runs[0].directory / DURATIONS).write_text("learned")
    played.go(again=True)
    assert (found.runs[0].directory / DURATIONS).read_text() == "learned"


def test_repeats_that_differ_are_a_finding_though_each_is_whole(played: Played) -> None:
    played.tests["system", "debian:trixie"] = [{TEST: "pass"}, {TEST: "skip: no igb"}]

    found = played.go(MatrixRequest(qemus=("system",), times=2))

    assert [cell.name for cell in found.unsteady] == ["A"]
    assert not found.is_fine


def test_what_names_nothing_is_refused_before_anything_runs(played: Played) -> None:
    wrong = {
        "there is no QEMU": MatrixRequest(qemus=("system", "./gone")),
        "cannot be read": MatrixRequest(kernels=("./gone",)),
        "no such series": MatrixRequest(kernels=("built:x",)),
        "is there twice": MatrixRequest(qemus=("system", "system")),
        "nothing is called": MatrixRequest(selection=("gone",)),
    }

    for words, request in wrong.items():
        with pytest.raises(ConfigError, match=words):
            played.go(request)

    assert played.runs == []


def test_the_line_to_go_on_with_says_all_that_was_asked_for() -> None:
    request = MatrixRequest(
        selection=("mtree",), qemus=("./my build",), kernels=("built:7.3",), keyword="a or b",
        full=True, times=3, workers="2", results=Path("res"),
    )  # fmt: skip

    assert request.command() == (
        "trapline matrix mtree '--qemu=./my build' --kernel=built:7.3 -k 'a or b' --full"
        " --times=3 -n 2 --results=res"
    )


def test_files_of_a_build_and_of_modules_are_told_apart_by_change(tmp_path: Path) -> None:
    image, modules = tmp_path / "bzImage", tmp_path / "mods/lib/modules/7.3/modules.dep"
    modules.parent.mkdir(parents=True)
    image.write_text("x")
    modules.write_text("x")

    found = stamps(f"{image}:{tmp_path}/mods", "debian:trixie", "system")

    assert sorted(found) == [str(image), str(modules)]
    image.write_text("xy")
    assert stamps(str(image))[str(image)] != found[str(image)]


def test_what_happens_is_told(played: Played) -> None:
    played.go(MatrixRequest(qemus=("system",)))
    played.go(MatrixRequest(qemus=("system",)))

    assert played.said == [
        "[1/1] A: QEMU system, kernel debian:trixie",
        "[1/1] A: 1 pass, 0 fail, 0 error, 0 skip (61 s)",
        "[1/1] A: done before, --again does it again",
    ]
    assert json.loads((played.go(MatrixRequest(qemus=("system",))).runs[0].directory / work.DONE)
                      .read_text()) == {"run": "20261121-01", "stamps": {}}  # fmt: skip

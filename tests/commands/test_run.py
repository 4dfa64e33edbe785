"""``trapline run``: the command line for pytest, and what comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.commands.places import Places
from harness.commands.run import (
    RunRequest,
    build_arguments,
    parse_results,
    parse_workers,
    resolve,
    run_suites,
    split_words,
)
from harness.errors import ConfigError

PLAIN = (
    "import pytest\n"
    "@pytest.mark.rule('MAP-01')\ndef test_a(): pass\n"
    "@pytest.mark.rule('MAP-02')\ndef test_b(): assert 0\n"
)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.chdir(tmp_path)
    area = tmp_path / "suites/vfio_pci"
    area.mkdir(parents=True)
    (area / "test_msix.py").write_text(PLAIN)
    (tmp_path / "suites/__init__.py").touch()
    (tmp_path / "suites/__pycache__").mkdir()
    return Places(tmp_path, tmp_path / "results", is_checkout=False)


@pytest.fixture
def here(places: Places, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setattr(Places, "find", classmethod(lambda _: places))
    return places


def test_the_shortest_command_runs_all_suites() -> None:
    places = Places(Path("/co"), Path("/co/results"), is_checkout=True)

    assert build_arguments(RunRequest(), places)[1:] == [
        "--results=/co/results",
        "--leave-out-full",
        "/co/suites",
    ]


def test_an_area_of_another_architecture_runs_only_when_it_is_asked_for(places: Places) -> None:
    (places.suites / "vfio_ap").mkdir()
    ignored = f"--ignore={places.suites / 'vfio_ap'}"

    def is_ignored(request: RunRequest) -> bool:
        return ignored in build_arguments(request, places)

    assert is_ignored(RunRequest())
    assert is_ignored(RunRequest(keyword="mask"))
    assert not is_ignored(RunRequest(full=True))
    assert not is_ignored(RunRequest(selection=("vfio_ap",)))
    assert not is_ignored(RunRequest(selection=("AP-07",)))


def test_who_leaves_an_area_out_says_so(here: Places, capsys: pytest.CaptureFixture[str]) -> None:
    (here.suites / "vfio_ap").mkdir()
    run_suites(RunRequest(pytest_arguments=("--collect-only",)))

    assert "vfio_ap is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("request_", "short"),
    [(RunRequest(), True), (RunRequest(keyword="msix"), True), (RunRequest(full=True), False),
     (RunRequest(selection=("MAP-02",)), False)],
)  # fmt: skip
def test_only_a_run_of_nothing_by_name_leaves_out_what_is_marked_full(
    request_: RunRequest, short: bool
) -> None:
    places = Places(Path("/co"), Path("/co/results"), is_checkout=True)

    assert ("--leave-out-full" in build_arguments(request_, places)) is short


def test_every_option_reaches_pytest() -> None:
    places = Places(Path("/co"), Path("/co/results"), is_checkout=True)
    request = RunRequest(
        selection=("MAP-02", "VTD"),
        keyword="msix and not relocated",
        marks="not slow",
        workers=2,
        qemu="./q",
        l0_qemu="debian:bookworm",
        kernel="k",
        guest_kernel="g",
        host="ssh://root@box",
        results=Path("/out"),
        capture=False,
        pytest_arguments=("-x", "--maxfail", "3"),
    )

    assert build_arguments(request, places)[1:] == [
        "--results=/out",
        "--qemu=./q",
        "--l0-qemu=debian:bookworm",
        "--kernel=k",
        "--guest-kernel=g",
        "--host=ssh://root@box",
        "-k=msix and not relocated",
        "-m=not slow",
        "--numprocesses=2",
        "--capture=no",
        "--rule=MAP-02",
        "--rule=VTD",
        "-x", "--maxfail", "3",
        "/co/suites",
    ]  # fmt: skip


def test_an_installed_trapline_brings_its_own_pytest_settings() -> None:
    places = Places(Path("/site"), Path("/here/results"), is_checkout=False)

    arguments = build_arguments(RunRequest(), places)

    assert arguments[:3] == [
        "--config-file=/dev/null",
        "--rootdir=/site",
        "--import-mode=importlib",
    ]
    assert arguments[-1] == "/site/suites"


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("vfio_pci", "{root}/suites/vfio_pci"),
        ("suites/vfio_pci", "{root}/suites/vfio_pci"),
        ("vfio_pci/test_msix.py::test_a", "{root}/suites/vfio_pci/test_msix.py::test_a"),
        ("MAP-02", "--rule=MAP-02"),
        ("QRK", "--rule=QRK"),
        ("map-02", "--rule=MAP-02"),
        ("Qrk", "--rule=QRK"),
    ],
)
def test_a_word_may_be_an_area_a_path_a_test_or_a_rule(
    places: Places, word: str, found: str
) -> None:
    assert resolve(word, places) == found.format(root=places.root)


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("nonsense", r"name an area \(vfio_pci\)"),
        ("ZZZ", "series: AP"),
        ("zzz-01", "series: AP"),
    ],
)
def test_a_word_that_names_nothing_is_refused(places: Places, word: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        resolve(word, places)


def test_an_area_goes_before_a_series_of_its_name(places: Places) -> None:
    (places.suites / "map").mkdir()

    assert resolve("map", places) == str(places.suites / "map")


@pytest.mark.parametrize("word", ["", " "])
def test_results_in_no_directory_at_all_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="--results names no directory"):
        parse_results(word)


def test_results_have_their_usual_place_or_the_one_that_is_named() -> None:
    assert parse_results(None) is None
    assert parse_results("there") == Path("there")


@pytest.mark.parametrize("place", ["/proc/foo", "{root}/a-file", "{root}/a-file/below"])
def test_results_that_cannot_be_kept_are_refused_before_anything_runs(
    here: Places, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a-file").touch()

    with pytest.raises(ConfigError, match=r"results cannot be kept in .*\n.*\n  next: name"):
        run_suites(RunRequest(results=Path(place.format(root=tmp_path))))
    assert capsys.readouterr().out == ""


def test_words_from_the_first_dash_on_are_for_pytest() -> None:
    assert split_words(["a", "b", "-x", "--maxfail", "3"]) == (
        ("a", "b"),
        ("-x", "--maxfail", "3"),
    )
    assert split_words([]) == ((), ())


def test_a_run_ends_with_the_status_of_pytest_and_says_where_results_are(here: Places) -> None:
    good = run_suites(RunRequest(selection=("MAP-01",)))
    bad = run_suites(RunRequest(selection=("vfio_pci",)))

    assert (good.exit_status, bad.exit_status) == (0, 1)
    assert bad.directory == (here.results / "latest").resolve()
    assert "1 pass, 1 fail" in (here.results / "latest/summary.txt").read_text()


def test_a_selection_without_tests_is_a_mistake(
    here: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run_suites(RunRequest(keyword="nothing_is_called_so"))

    assert outcome.exit_status == 2
    assert "the selection matches no test" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "count"), [(None, None), ("auto", "auto"), ("0", 0), ("7", 7)])
def test_workers_are_a_number_or_auto(word: str | None, count: int | str | None) -> None:
    assert parse_workers(word) == count


@pytest.mark.parametrize("word", ["", "-1", "two", "1.5"])
def test_other_words_for_workers_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="number, or auto"):
        parse_workers(word)


@pytest.mark.parametrize(
    ("request_", "spread"),
    [
        (RunRequest(), ["--numprocesses=auto"]),
        (RunRequest(workers=0), ["--numprocesses=0"]),
        (RunRequest(selection=("vfio_pci",)), []),
        (RunRequest(pytest_arguments=("-x",)), []),
        (RunRequest(capture=False), []),
    ],
    ids=["whole run", "told", "a part", "own arguments", "not captured"],
)
def test_only_a_whole_run_is_spread_by_itself(
    here: Places, monkeypatch: pytest.MonkeyPatch, request_: RunRequest, spread: list[str]
) -> None:
    given: list[str] = []

    def main(arguments: list[str], plugins: list[object]) -> int:
        given.extend(arguments)
        return 0

    monkeypatch.setattr("pytest.main", main)

    run_suites(request_)

    assert [word for word in given if word.startswith("--numprocesses")] == spread

"""``trapline run``: run suites, or what of them is asked for, in this process."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from harness.commands.places import Places
from harness.errors import ConfigError, ParseError
from harness.report import space
from harness.report.rundir import RUN, RunDirectory, check_base
from harness.report.summary import counts_line, interrupted_line, read_facts
from harness.rules import select

_RULE = re.compile(r"[A-Z]{2,}|[A-Za-z]{2,}-\d{2}")
_SERIES = re.compile(r"[A-Za-z]{2,}")
EXIT_NOTHING_SELECTED = 2
Count = int | Literal["auto"]
LEFT_OUT = {"vfio_ap": "its host is of another architecture and has images of its own"}
"""Areas that a run has only if they are named, and why."""

# The command line has imported the library before pytest could rewrite the asserts in it; it
# has none that a test relies on.
_QUIET = "-W=ignore:Module already imported:pytest.PytestAssertRewriteWarning"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the user asked for; empty or None is left to the plugin's defaults."""

    selection: tuple[str, ...] = ()
    """Areas (``vfio_pci``), files, node ids, rules (``MAP-02``) or series (``MAP``)."""
    keyword: str = ""
    marks: str = ""
    workers: Count | None = None
    """Processes that run tests; "auto": as many as fit (`harness.spread.workers`)."""
    qemu: str | None = None
    l0_qemu: str | None = None
    kernel: str | None = None
    guest_kernel: str | None = None
    host: str | None = None
    saved_state: str | None = None
    full: bool = False
    """Every area and every test, also those that are otherwise run only when named."""
    results: Path | None = None
    capture: bool = True
    pytest_arguments: tuple[str, ...] = ()

    @property
    def is_selective(self) -> bool:
        """Say whether finding no test is the user's mistake."""
        return bool(self.selection or self.keyword or self.marks)


@dataclass(slots=True, eq=False)  # pytest keeps its plugins in sets
class Outcome:
    """How a run ended; a pytest plugin that learns where its results are."""

    exit_status: int = 0
    directory: Path | None = None
    config: pytest.Config | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Learn where the results go."""
        self.config = session.config
        run = session.config.stash.get(RUN, None)
        self.directory = run.path if run is not None else None


def run_suites(request: RunRequest) -> Outcome:
    """Run what *request* asks for.

    :return: exit status of pytest, but 2 when a selection found no test; where results are.
    :raise ConfigError: the selection names nothing, or results cannot be kept.
    """
    outcome = Outcome()
    for area in left_out(request, Places.find()):
        print(
            f"trapline: {area} is left out: {LEFT_OUT[area]}; name it, or give --full",
            file=sys.stderr,
        )
    # A part of the suites is soon done: a second host would cost more than it brings.
    whole = not request.is_selective and not request.pytest_arguments
    if request.workers is None and whole and request.capture:
        request = replace(request, workers="auto")
    arguments = build_arguments(request, Places.find())
    results = (request.results or Places.find().results).absolute()
    check_base(results)
    is_small = request.is_selective and not request.full
    if warning := space.look(results, space.PART if is_small else space.WHOLE):
        print(f"trapline: {warning}", file=sys.stderr)
    status = _run_pytest(arguments, outcome)
    if status == pytest.ExitCode.NO_TESTS_COLLECTED and request.is_selective:
        print("trapline: the selection matches no test", file=sys.stderr)
        status = EXIT_NOTHING_SELECTED
    if outcome.directory is not None and not outcome.directory.is_dir():
        outcome.directory = None  # refused before it began
    outcome.exit_status = status
    return outcome


def _run_pytest(arguments: list[str], outcome: Outcome) -> int:
    """Run pytest; say what it does not where the end of it is interrupted.

    :raise ConfigError: the results have no space left.
    """
    try:
        status = int(pytest.main(arguments, plugins=[outcome]))
    except KeyboardInterrupt:
        if outcome.directory is None:
            raise
        print(f"trapline: {_what_ended(outcome.directory)}")
        return int(pytest.ExitCode.INTERRUPTED)
    except OSError as error:
        if outcome.directory is None or not space.is_full(error):
            raise
        raise space.none_left(outcome.directory) from error
    if outcome.directory and outcome.config and outcome.config.stash.get(space.FULL, False):
        raise space.none_left(outcome.directory)
    return status


def _what_ended(directory: Path) -> str:
    """Return what a run has come to that was interrupted when pytest was about to end."""
    try:
        facts = read_facts(RunDirectory(directory).facts)
    except (OSError, ParseError):
        return "interrupted before the results were whole"
    counts = facts["counts"]
    said = interrupted_line(sum(counts.values()), facts["collected"])
    return f"{counts_line(counts)}; {said}"


def left_out(request: RunRequest, places: Places) -> list[str]:
    """Return the areas that *request* does not run although nothing says so."""
    if request.full or request.selection:
        return []
    return [area for area in LEFT_OUT if (places.suites / area).is_dir()]


def parse_workers(word: str | None) -> Count | None:
    """Return what ``-n`` was given.

    :raise ConfigError: it is neither a number nor ``auto``.
    """
    if word is None:
        return None
    if word == "auto":
        return "auto"
    if word.isdecimal():
        return int(word)
    raise ConfigError(f"-n {word} is no number of processes", hint="give a number, or auto")


def parse_results(word: str | None) -> Path | None:
    """Return what ``--results`` was given.

    :raise ConfigError: it is empty, as an unset variable of a shell is.
    """
    if word is None:
        return None
    if not word.strip():
        raise ConfigError("--results names no directory", hint="give one, or leave the option out")
    return Path(word)


def build_arguments(request: RunRequest, places: Places) -> list[str]:
    """Return the command line for pytest.

    :raise ConfigError: the selection names nothing.
    """
    selected = [resolve(word, places) for word in request.selection]
    options = [word for word in selected if word.startswith("--")]
    paths = [word for word in selected if not word.startswith("--")] or [str(places.suites)]
    subjects = {
        "qemu": request.qemu,
        "l0-qemu": request.l0_qemu,
        "kernel": request.kernel,
        "guest-kernel": request.guest_kernel,
        "host": request.host,
        "saved-state": request.saved_state,
    }
    return [
        *places.pytest_options(),
        _QUIET,
        f"--results={(request.results or places.results).absolute()}",
        *(f"--{name}={value}" for name, value in subjects.items() if value is not None),
        *([f"-k={request.keyword}"] if request.keyword else []),
        *([f"-m={request.marks}"] if request.marks else []),
        *([f"--numprocesses={request.workers}"] if request.workers is not None else []),
        *([] if request.capture else ["--capture=no"]),
        *([] if request.full or request.selection else ["--leave-out-full"]),
        *(f"--ignore={places.suites / area}" for area in left_out(request, places)),
        *options,
        *request.pytest_arguments,
        *paths,
    ]


def split_words(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the selection and the arguments for pytest: from the first word with a dash on.

    The command line itself takes such words only after ``--``.
    """
    first = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    return tuple(words[:first]), tuple(words[first:])


def resolve(word: str, places: Places) -> str:
    """Return what pytest must be given for one word of the selection.

    A rule or series, in whatever case, becomes an option; a path goes before a series in small
    letters. A path may be relative to the suites, to here or to the parent of the suites, and
    may go on with ``::test``.

    :raise ConfigError: it names nothing.
    """
    if _RULE.fullmatch(word):
        select(word)
        return f"--rule={word.upper()}"
    path, separator, test = word.partition("::")
    for base in (places.suites, Path.cwd(), places.root):
        if (base / path).exists():
            return f"{base / path}{separator}{test}"
    with contextlib.suppress(ConfigError):
        if _SERIES.fullmatch(word) and select(word):
            return f"--rule={word.upper()}"
    areas = sorted(
        entry.name
        for entry in places.suites.iterdir()
        if entry.is_dir() and entry.name[0] not in "_."
    )
    raise ConfigError(
        f"nothing is called {word!r}",
        hint=f"name an area ({', '.join(areas)}), a file, a test or a rule (MAP-02)",
    )

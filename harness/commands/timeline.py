"""``trapline bench timeline``: where the time of one test of a run went."""

from __future__ import annotations

import json
from pathlib import Path

from harness.bench.chrome_trace import chrome_trace
from harness.bench.pictures import write_pictures
from harness.bench.timeline import Span, durations_of_tests, of_test, read_lines
from harness.errors import ConfigError
from harness.report.rundir import evidence_name, latest
from harness.report.steps_log import FILE_NAME

NAME = "timeline"


def timeline(run: Path | None, test: str, *, results: Path) -> list[Path]:
    """Write the pictures of one test, and the trace of the whole run, into the run's directory.

    :param run: directory of the run; None: the last one below *results*.
    :param test: part of its node id; empty: the test that took longest.
    :return: the files.
    :raise ConfigError: there is no such run, no such test, or the run kept no steps.
    """
    directory = run or _latest(results)
    spans = read_steps(directory)
    chosen = choose(spans, test)
    files = write_pictures(
        of_test(spans, chosen), directory, f"timeline-{evidence_name(chosen)}", title=chosen
    )
    whole = directory / "timeline.trace.json"
    whole.write_text(json.dumps(chrome_trace(spans)) + "\n", encoding="utf-8")
    return [*files, whole]


def read_steps(directory: Path) -> list[Span]:
    """Return what the run in *directory* did.

    :raise ConfigError: it kept no steps.
    """
    path = directory / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(
            f"no steps in {directory}", seen=str(error), hint="name the directory of a run"
        ) from error
    return read_lines(text, where=str(path))


def choose(spans: list[Span], word: str) -> str:
    """Return the node id that contains *word*, of several the one that took longest.

    :raise ConfigError: none does.
    """
    took = {test: seconds for test, seconds in durations_of_tests(spans).items() if word in test}
    if not took:
        raise ConfigError(
            f"no test of the run is called {word!r}" if word else "the run has no test",
            seen="\n".join(sorted(durations_of_tests(spans))[:20]),
        )
    return max(took, key=lambda test: took[test])


def _latest(results: Path) -> Path:
    run = latest(results)
    if run is None:
        raise ConfigError(f"there is no run in {results}", hint="trapline run, or name a run")
    return run.path

"""Say how far a run is: a line per finished test and, on a terminal, what goes on now."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

import pytest
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from harness.model.rule import Verdict
from harness.report.results import Result
from harness.step import StepRecord, listen

_MOST_ROWS = 8
_STYLE = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.ERROR: "red", Verdict.SKIP: "yellow"}


def finished_line(result: Result) -> str:
    """Return ``PASS    0.12 s  suites/…::test_x  [MAP-02]``."""
    cited = " ".join(result.rules)
    if result.controls:
        cited = f"{cited}; controls {' '.join(result.controls)}".removeprefix("; ")
    parts = [f"{result.verdict.upper():<5}", f"{result.seconds:7.2f} s", f" {result.nodeid}"]
    if cited:
        parts.append(f" [{cited}]")
    if result.verdict is not Verdict.PASS and result.first_line:
        parts.append(f" {result.first_line}")
    if result.again:
        parts.append(f" (run again, {len(result.again)}: {result.again[-1]})")
    if result.worker:
        parts.insert(0, f"{result.worker:<4}")
    return " ".join(parts)


class Plain:
    """A line per finished test, through *write*."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def started(self, nodeid: str, total: int, worker: str = "") -> None:
        """Note that a test began; *total* is how many there are, 0 if not known."""

    def finished(self, result: Result) -> None:
        """Print the line of a finished test."""
        self._write(finished_line(result))

    def stepped(self, record: StepRecord) -> None:
        """Note a step."""

    def stop(self) -> None:
        """Print nothing more."""


class Status(Plain):
    """The same, above a status line that is drawn again and again.

    It draws while tests run, when pytest has taken standard output away, so it needs a
    stream of its own (`own_terminal`).
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        super().__init__(lambda line: None)
        self._began = time.monotonic()
        self._counts: Counter[Verdict] = Counter()
        self._total = 0
        self._running: dict[str, tuple[str, float]] = {}
        self._step = ""
        self._live: Live | None = None
        self._spinner = Spinner("dots")

    def started(self, nodeid: str, total: int, worker: str = "") -> None:
        """Show the test; the first one starts the drawing."""
        self._total = total
        self._running[nodeid] = worker, time.monotonic()
        if self._live is None:
            self._live = Live(
                get_renderable=self._draw,
                console=self._console,
                transient=True,
                refresh_per_second=8,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def finished(self, result: Result) -> None:
        """Print the line of a finished test above the status."""
        self._running.pop(result.nodeid, None)
        self._step = ""
        self._counts[result.verdict] += 1
        line = Text(finished_line(result), style=_STYLE[result.verdict])
        self._console.print(line, soft_wrap=True)

    def stepped(self, record: StepRecord) -> None:
        """Show the step that just began."""
        if record.seconds is None:
            self._step = record.text

    def stop(self) -> None:
        """Remove the status line."""
        if self._live is not None:
            live, self._live = self._live, None
            with contextlib.suppress(OSError):  # of a terminal that has gone
                live.stop()

    def _draw(self) -> Group:
        now = time.monotonic()
        counts = "  ".join(f"{self._counts[verdict]} {verdict}" for verdict in Verdict)
        total = f"/{self._total}" if self._total else ""
        head = Text(f"{sum(self._counts.values())}{total}  {counts}  {now - self._began:.0f} s")
        self._spinner.update(text=head)
        running = sorted(
            (worker, began, nodeid) for nodeid, (worker, began) in tuple(self._running.items())
        )
        rows = [_row(worker, f"{now - began:6.1f} s", nodeid) for worker, began, nodeid in running]
        if len(rows) > _MOST_ROWS:
            rows[_MOST_ROWS:] = [_row("", "", f"and {len(rows) - _MOST_ROWS} more")]
        if self._step:
            rows.append(_row("", "", self._step))
        return Group(self._spinner, *rows)


def _row(worker: str, seconds: str, what: str) -> Text:
    """Return one line below the status: who, for how long, what."""
    return Text(f"  {worker:<4}{seconds:>8}  {what}", overflow="ellipsis", no_wrap=True)


def begin(config: pytest.Config, reporter: pytest.TerminalReporter) -> Plain:
    """Return the progress that fits where pytest writes; the end of the run cleans up.

    A status line needs a terminal, and nobody else who writes to it meanwhile.
    """
    is_alone = config.option.capture != "no" and not config.option.usepdb
    stream = own_terminal(sys.stdout) if is_alone else None
    if stream is None:
        return Plain(reporter.write_line)
    status = Status(stream)
    config.add_cleanup(stream.close)
    config.add_cleanup(status.stop)
    config.add_cleanup(listen(status.stepped))
    return status


def own_terminal(stream: TextIO) -> TextIO | None:
    """Return a second stream to the terminal behind *stream*, None if there is no terminal.

    The caller closes it.
    """
    try:
        if not stream.isatty():
            return None
        return os.fdopen(os.dup(stream.fileno()), "w", encoding="utf-8")
    except (OSError, ValueError):
        return None

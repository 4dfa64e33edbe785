"""Say how far a build of images is: a live line on a terminal, plain lines otherwise."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape

from harness.images.debian import Progress
from harness.step import StepRecord, listen

WORTH_A_LINE = 0.5
"""Seconds below which a finished step gets no line of its own."""


@contextlib.contextmanager
def build_progress(console: Console | None = None) -> Iterator[Progress]:
    """Show steps and downloads while inside; yields what downloads report to."""
    console = console or Console(file=sys.stderr)
    shown = (
        _Live(console)
        if console.is_terminal
        else _Lines(lambda line: console.print(line, markup=False, highlight=False))
    )
    stop = listen(shown.stepped)
    warnings = _Warnings(shown.warned)
    logging.getLogger("harness.images").addHandler(warnings)
    try:
        with shown.running():
            yield shown.downloaded
    finally:
        logging.getLogger("harness.images").removeHandler(warnings)
        stop()


class _Warnings(logging.Handler):
    """Hands on what must be said, such as that a damaged image is made again."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it as one line."""
        self._tell(f"trapline: {record.getMessage()}")


class _Lines:
    """A line per step that took long enough to wonder."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def running(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def stepped(self, record: StepRecord) -> None:
        if record.seconds is not None and record.seconds >= WORTH_A_LINE:
            failed = f" {record.failed}" if record.failed else ""
            self._write(f"{'  ' * record.depth}{record.text} ({record.seconds:.1f} s){failed}")

    def warned(self, text: str) -> None:
        self._write(text)

    def downloaded(self, what: str, percent: float) -> None:
        """Nothing: the step that downloads says how much it is."""


class _Live(_Lines):
    """The same lines, and below them one that says what goes on."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            lambda line: console.print(line, style="dim", markup=False, highlight=False)
        )
        self._status = console.status("looking")
        self._doing: list[tuple[str, float]] = []

    def running(self) -> contextlib.AbstractContextManager[object]:
        return self._status

    def stepped(self, record: StepRecord) -> None:
        if record.seconds is None:
            self._doing = [*self._doing[: record.depth], (record.text, time.monotonic())]
        else:
            self._doing = self._doing[: record.depth]
            super().stepped(record)
        self._show()

    def downloaded(self, what: str, percent: float) -> None:
        self._show(f" {percent:.0f}%")

    def _show(self, more: str = "") -> None:
        if not self._doing:
            self._status.update("looking")
            return
        text, began = self._doing[-1]
        self._status.update(f"{escape(text)}{more} [dim]{time.monotonic() - began:.0f} s[/dim]")

"""``steps.jsonl`` of a run: what was done when, inside what, by which worker.

One JSON object a line for each step that ended and each phase of a test; the fields are those
of `harness.bench.timeline.Span`. All workers append to one file: a line is one write.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from harness.step import StepRecord, listen

FILE_NAME = "steps.jsonl"


class StepsLog:
    """Writes them; a pytest plugin.

    :param worker: name of this worker; empty where tests run, or are spread, without one.
    """

    def __init__(self, directory: Path, *, worker: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(directory / FILE_NAME, flags, 0o644)
        self._worker = worker or "main"
        self._stop: Callable[[], None] = listen(self._stepped)

    def pytest_unconfigure(self) -> None:
        """Write nothing more; callable twice."""
        self._stop()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        """Note how long the set-up took."""
        with self._phase("set up", item.nodeid):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """Note how long the test took."""
        with self._phase("call", item.nodeid):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        """Note how long the tear-down took."""
        with self._phase("tear down", item.nodeid):
            return (yield)

    @contextlib.contextmanager
    def _phase(self, what: str, test: str) -> Iterator[None]:
        began, clock = time.time(), time.monotonic()
        failed = ""
        try:
            yield
        except BaseException as error:
            failed = type(error).__name__
            raise
        finally:
            self._write(
                text=f"{what} {test.rpartition('::')[2]}",
                began=began,
                seconds=time.monotonic() - clock,
                failed=failed,
                test=test,
            )

    def _stepped(self, record: StepRecord) -> None:
        if record.seconds is not None:
            self._write(
                text=record.text,
                began=record.began,
                seconds=record.seconds,
                depth=record.depth,
                thread=record.thread,
                failed=record.failed,
            )

    def _write(self, **fields: str | float | int) -> None:
        if self._file >= 0:
            line = json.dumps({"worker": self._worker, **fields}, ensure_ascii=False)
            with contextlib.suppress(OSError):  # a full disk must not change a verdict
                os.write(self._file, line.encode(errors="replace") + b"\n")

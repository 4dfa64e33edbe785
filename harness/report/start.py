"""The start of a run: it is refused when tests need a subject that could not be found.

What is refused keeps no directory of results without a word of why.
"""

from __future__ import annotations

import pytest

from harness.report.rundir import RUN
from harness.settings import SUBJECT

UNKNOWN = "subject unknown"
"""The fact that stands for all others where they could not be found: the message."""
_NEXT = (
    "correct what names it (--qemu, --l0-qemu, --kernel, --guest-kernel, --host), or run what "
    "needs none of them"
)


class Start:
    """Hooks for wherever tests are collected: one process, or each worker."""

    def __init__(self) -> None:
        self._is_told = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Refuse to run tests without the subject that they need; a worker tells who started it.

        :raise pytest.UsageError: one of them needs it.
        """
        problem = session.config.stash.get(SUBJECT, {}).get(UNKNOWN, "")
        if not problem or not any(
            item.ihook.pytest_trapline_needs_subject(item=item) for item in session.items
        ):
            return
        text = refusal(problem)
        if not hasattr(session.config, "workeroutput"):
            raise pytest.UsageError(text)
        session.items.clear()
        session.config.workeroutput["trapline_usage"] = text

    def pytest_sessionfinish(self) -> None:
        """Learn that results are written."""
        self._is_told = True

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Leave no directory of a run that ended before it began."""
        run = config.stash.get(RUN, None)
        if run is not None and not self._is_told and not hasattr(config, "workerinput"):
            run.forget()


def refusal(problem: str) -> str:
    """Return what is said of a run whose subject is unknown.

    :param problem: text of a `HarnessError`.
    """
    return problem if "\n  next: " in problem else f"{problem}\n  next: {_NEXT}"

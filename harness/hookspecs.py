"""Hooks that trapline's plugin calls; any conftest or plugin may implement them.

pytest finds implementations by their prefix, so the names begin with ``pytest_``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.spread.shared import Shared


@pytest.hookspec
def pytest_trapline_subject(config: pytest.Config) -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return facts about what is judged: ``qemu``, ``host kernel``, ``accelerator``, ….

    Called once per run, by the controller, when tests will run (never while listing them).
    All answers are merged; they go to the header, every test's properties and the summary.
    Facts that qualify a result (``labels``: ``adapters modelled``) belong here too.
    """


@pytest.hookspec(firstresult=True)
def pytest_trapline_needs_subject(item: pytest.Item) -> bool:  # type: ignore[empty-body]
    """Say whether *item* can only break where the subject is unknown.

    Called wherever tests are collected, when ``pytest_trapline_subject`` raised an error of the
    lab; the answer of the nearest conftest counts. One such test, and no test is run.
    """


@pytest.hookspec(firstresult=True)
def pytest_trapline_shared(item: pytest.Item) -> Shared | None:
    """Return what *item* shares with other tests and is costly to make; None: nothing.

    Called wherever tests are collected, after the last of them was; the answer of the nearest
    conftest counts. With workers, tests that share something stay together as far as that
    saves time (docs/parallel.md). A wrong answer makes a run slower, never wrong.
    """

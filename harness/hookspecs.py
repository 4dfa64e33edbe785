"""Hooks that trapline's plugin calls; any conftest or plugin may implement them.

pytest finds implementations by their prefix, so the names begin with ``pytest_``."""

from __future__ import annotations

from collections.abc import Mapping

import pytest


@pytest.hookspec
def pytest_trapline_subject(config: pytest.Config) -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return facts about what is judged: ``qemu``, ``host kernel``, ``accelerator``, ….

    Called once per run, by the controller, when tests will run (never while listing them).
    All answers are merged; they go to the header, every test's properties and the summary.
    Facts that qualify a result (``labels``: ``adapters modelled``) belong here too.
    """

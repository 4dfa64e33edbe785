"""Small words that suite tests are written with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NoReturn

import pytest

SAID_LENGTH = 300
"""Characters that are kept of what a check said."""
SAID_COUNT = 20
"""How many sayings are kept of one test."""

_HEARD: ContextVar[list[str] | None] = ContextVar("heard", default=None)


def only(*names: str) -> pytest.MarkDecorator:
    """Narrow the fixture ``assigned`` to these test devices."""
    return pytest.mark.parametrize("assigned", names, indirect=True)


def skip(lack: str, *, enabled_by: str) -> NoReturn:
    """Skip the test, and say how it can be had: ``<lack>: <enabled_by> would enable this``.

    The one way to skip in suites: a reason that leaves the reader without a next step helps
    nobody.

    :param lack: what is not there, or what the test is about that this is not.
    :param enabled_by: the option, build, kernel or machine to give.
    """
    __tracebackhide__ = True
    pytest.skip(f"{lack}: {enabled_by} would enable this")


@contextlib.contextmanager
def must_fail() -> Iterator[None]:
    """Hold a negative control: the check inside must fail, or the control does.

    Only a failed assertion counts. An error of the harness inside stays an error: a check
    that could not look has not failed.
    """
    try:
        yield
    except AssertionError as failure:
        # The control's evidence: what the check said of the subject that breaks the rule.
        heard = _HEARD.get()
        if heard is not None and len(heard) < SAID_COUNT:
            heard.append(what_was_said(failure))
        return
    pytest.fail("the check passed on a subject that breaks the rule: it cannot fail")


@contextlib.contextmanager
def hearing() -> Iterator[list[str]]:
    """Hear what the checks say that fail inside `must_fail`, as long as this is open.

    :return: a list that grows: one text each, as `what_was_said` has it, `SAID_COUNT` at most.
    """
    heard: list[str] = []
    token = _HEARD.set(heard)
    try:
        yield heard
    finally:
        _HEARD.reset(token)


def what_was_said(failure: AssertionError) -> str:
    """Return the words of a failed check in one line, `SAID_LENGTH` characters at most.

    What pytest adds about the values is left out where the check had words of its own.
    """
    words = str(failure)
    own = words.partition("\nassert ")[0].strip() or words or "(no words)"
    line = " | ".join(stripped for part in own.splitlines() if (stripped := part.strip()))
    return line if len(line) <= SAID_LENGTH else f"{line[: SAID_LENGTH - 1]}…"


def check_said(said: str, expected: str, *more: str) -> None:
    """Check that every expected part is in what QEMU said, the empty text being its consent."""
    missing = [part for part in (expected, *more) if part not in said]
    assert not missing, f"not said: {missing}\nsaid: {said or 'nothing: accepted'}"

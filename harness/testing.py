"""Small words that suite tests are written with."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import pytest

log = logging.getLogger(__name__)


def only(*names: str) -> pytest.MarkDecorator:
    """Narrow the fixture ``assigned`` to these test devices."""
    return pytest.mark.parametrize("assigned", names, indirect=True)


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
        log.info("the check fails, as it must: %s", str(failure).partition("\n")[0])
        return
    pytest.fail("the check passed on a subject that breaks the rule: it cannot fail")


def check_said(said: str, expected: str, *more: str) -> None:
    """Check that every expected part is in what QEMU said, the empty text being its consent."""
    missing = [part for part in (expected, *more) if part not in said]
    assert not missing, f"not said: {missing}\nsaid: {said or 'nothing: accepted'}"

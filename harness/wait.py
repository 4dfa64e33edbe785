"""Waiting with a name, a condition and a deadline. There is no other way to wait here.

Polls start short and grow, so a condition that holds at once costs nothing. Each wait may
watch guards, functions that raise when waiting has become pointless (QEMU died, the kernel
panicked); they end it at once with the true cause.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import tenacity

from harness.errors import WaitTimeout

T = TypeVar("T")

Guard = Callable[[], None]


def wait_until(
    name: str,
    condition: Callable[[], T | None],
    *,
    timeout: float,
    guards: Iterable[Guard] = (),
    last_seen: Callable[[], str] | None = None,
    interval: float = 0.25,
    hint: str = "",
) -> T:
    """Return the first true value of *condition*.

    :param name: what is waited for, as a person would say it.
    :param timeout: seconds.
    :param guards: called before each poll; an exception ends the wait.
    :param last_seen: describes the state at the end, for the message.
    :param interval: longest pause between polls, seconds.
    :raise WaitTimeout: the deadline passed.
    """
    began = time.monotonic()
    watch = tuple(guards)

    def poll() -> T | None:
        for guard in watch:
            guard()
        return condition()

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_delay(timeout),
        wait=tenacity.wait_exponential(multiplier=0.01, max=interval),
        retry=tenacity.retry_if_result(lambda value: not value),
    )
    try:
        value = retrying(poll)
    except tenacity.RetryError as error:
        seen = last_seen() if last_seen is not None else repr(error.last_attempt.result())
        waited = time.monotonic() - began
        raise WaitTimeout(
            f"{name}: did not happen within {timeout:g} s (waited {waited:.1f} s)",
            seen=seen,
            hint=hint,
        ) from None
    assert value is not None  # retry_if_result let only true values through
    return value


def hear_guards(name: str, guards: Iterable[Guard], *, timeout: float = 2) -> None:
    """Let a guard say why something of *name* ended; a process takes a moment to be dead.

    Returns when *timeout* seconds have passed and none did.
    """
    with contextlib.suppress(WaitTimeout):
        wait_until(f"{name}: cause of the end", lambda: None, timeout=timeout, guards=guards)

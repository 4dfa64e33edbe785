"""Exit statuses in words."""

from __future__ import annotations

import contextlib
import signal


def describe_exit(status: int) -> str:
    """Return ``exited with 1`` or ``was ended by signal 6 (SIGABRT)``."""
    if status >= 0:
        return f"exited with {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by signal {-status} ({signal.Signals(-status).name})"
    return f"was ended by signal {-status}"

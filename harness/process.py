"""Child processes that die with us.

Each child leads its own process group and asks the kernel for SIGKILL when the thread that
started it ends (``prctl(PR_SET_PDEATHSIG)``), so that even ``kill -9`` of the runner leaves
nothing. The signal follows the *thread*: start children from a thread that lives as long as
the run (the main thread, or the loop thread of `harness.machine.qmp`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: dlopen() in the child of a threaded process may deadlock.
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died between fork and prctl
        os._exit(1)


def start(
    argv: Sequence[str | os.PathLike[str]],
    *,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start *argv* in a process group of its own, bound to our life.

    :raise OSError: the program could not be started.
    """
    parent = os.getpid()
    return subprocess.Popen(
        [os.fspath(word) for word in argv],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=True,
        preexec_fn=lambda: _die_with_parent(parent),
    )


def kill(process: subprocess.Popen[bytes], *, grace: float = 0.0) -> int:
    """End *process* and its group; SIGTERM first when *grace* seconds are given.

    :return: its exit status (negative: signal number).
    """
    if process.poll() is None and grace > 0:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(grace)
    _signal_group(process.pid, signal.SIGKILL)
    return process.wait()


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)

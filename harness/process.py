"""Child processes that die with us.

Each child leads its own process group and asks the kernel for SIGKILL when the thread that
started it ends (``prctl(PR_SET_PDEATHSIG)``), so that even ``kill -9`` of the runner leaves
nothing. The signal follows the *thread*, so all children are started by threads that live as
long as the run: the main thread, and one keeper for everybody else.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import errno
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import IO, Any

_Spawn = Callable[[], "subprocess.Popen[bytes]"]
_Started = concurrent.futures.Future["subprocess.Popen[bytes]"]

_PR_SET_PDEATHSIG = 1
_STDERR = 2
# Loaded before any fork: dlopen() in the child of a threaded process may deadlock.
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died between fork and prctl
        os._exit(1)


def stop_like_ctrl_c(*, background: bool = True) -> None:
    """Take SIGTERM and SIGHUP as Ctrl-C: what ends in good order by that ends so by these.

    A SIGHUP that is ignored stays so: ``nohup`` wants it.

    :param background: take SIGINT too where a script started us in the background, which has
        it ignored.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT)[: 1 + background]:
            signal.signal(number, signal.default_int_handler)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, _hang_up)


@contextlib.contextmanager
def undisturbed() -> Iterator[list[int]]:
    """Hold back what would interrupt, for something short that must be whole.

    :return: the signals that came; it is for the caller to say so.
    """
    heard: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if number == signal.SIGHUP:
            _leave_lost_terminal()

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # What is ignored, or ends us at once, stays as it is.
        before = {n: signal.getsignal(n) for n in numbers if callable(signal.getsignal(n))}
    for number in before:
        signal.signal(number, note)
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hang_up(number: int, frame: FrameType | None) -> None:
    """Interrupt, once: the kernel and the shell both send it when a terminal goes."""
    signal.signal(number, lambda *_: None)
    _leave_lost_terminal()
    signal.default_int_handler(number, frame)


def _leave_lost_terminal() -> None:
    """Let what was to go to a terminal that has gone go nowhere.

    Each write would be an error (EIO), and end what must still be put in order. pytest has
    copies of standard output, so all descriptors are looked at.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith(("/dev/pts/", "/dev/tty")):
                continue
            try:
                os.write(int(name), b"")
            except OSError as error:
                if error.errno == errno.EIO:
                    os.dup2(nowhere, int(name), inheritable=int(name) <= _STDERR)
    os.close(nowhere)


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

    def spawn() -> subprocess.Popen[bytes]:
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

    if threading.current_thread() is threading.main_thread():
        return spawn()
    return _Keeper.do(spawn)


class _Keeper:
    """A thread that never ends, for children of threads that do."""

    _lock = threading.Lock()
    _jobs: queue.SimpleQueue[tuple[_Spawn, _Started]] | None = None

    @classmethod
    def do(cls, spawn: _Spawn) -> subprocess.Popen[bytes]:
        with cls._lock:
            if cls._jobs is None:
                cls._jobs = queue.SimpleQueue()
                threading.Thread(
                    target=cls._work, args=(cls._jobs,), name="child-keeper", daemon=True
                ).start()
        started: _Started = concurrent.futures.Future()
        cls._jobs.put((spawn, started))
        return started.result()

    @staticmethod
    def _work(jobs: queue.SimpleQueue[tuple[_Spawn, _Started]]) -> None:
        while True:
            spawn, started = jobs.get()
            try:
                started.set_result(spawn())
            except BaseException as error:
                started.set_exception(error)


def kill(process: subprocess.Popen[bytes], *, grace: float = 0.0) -> int:
    """End *process* and its group; SIGTERM first when *grace* seconds are given.

    :return: its exit status (negative: signal number).
    """
    if grace > 0 and process.returncode is None:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    _signal_group(process, signal.SIGKILL)
    return process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal the group, which may outlive its leader; never one that only has its number.

    The number of a leader that was waited for is free as soon as its group is empty. As long
    as the group is not, no process can get it; so a process that has it is a stranger.
    """
    if process.returncode is not None and os.path.exists(f"/proc/{process.pid}"):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)

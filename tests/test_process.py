"""Children: how they start, whose death they share, how they are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness import process
from harness.wait import wait_until


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_leads_a_process_group_of_its_own() -> None:
    child = process.start(["sleep", "1000"])

    assert os.getpgid(child.pid) == child.pid
    assert process.kill(child) == -signal.SIGKILL


def test_a_child_of_a_thread_outlives_the_thread() -> None:
    children: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: children.append(process.start(["sleep", "1000"])))
    thread.start()
    thread.join()

    with pytest.raises(subprocess.TimeoutExpired):
        children[0].wait(0.3)
    process.kill(children[0])


def test_a_program_that_is_not_there_is_told_from_every_thread() -> None:
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            process.start(["/nonexistent"])
        except OSError as error:
            errors.append(error)

    attempt()
    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()

    assert [type(error) for error in errors] == [FileNotFoundError] * 2


@pytest.mark.parametrize("how", ["main thread", "other thread"])
def test_children_die_with_a_killed_parent(how: str) -> None:
    code = (
        "import threading, signal; from harness import process\n"
        "def work(): print(process.start(['sleep', '1000']).pid, flush=True)\n"
        + ("work()\n" if how == "main thread" else "threading.Thread(target=work).start()\n")
        + "signal.pause()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_alive(child)

    parent.kill()
    parent.communicate()

    wait_until("the child dies too", lambda: not is_alive(child), timeout=10)


def test_the_group_of_a_child_that_has_ended_is_ended_too() -> None:
    child = process.start(["sh", "-c", "sleep 1000 & echo $!"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    orphan = int(child.stdout.readline())
    assert child.wait(5) == 0

    process.kill(child)

    wait_until("the orphan dies", lambda: not is_alive(orphan), timeout=5)
    child.stdout.close()


def test_a_stranger_with_the_number_of_a_dead_child_is_not_killed() -> None:
    child = process.start(["true"])
    child.wait(5)
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    child.pid = stranger.pid  # as if the kernel had given the number away

    process.kill(child)

    with pytest.raises(subprocess.TimeoutExpired):
        stranger.wait(0.2)
    stranger.kill()
    stranger.wait()


def test_grace_lets_a_child_end_by_itself_and_force_ends_one_that_does_not() -> None:
    polite = process.start(["sh", "-c", "trap 'exit 7' TERM; echo; while :; do sleep 0.01; done"],
                           stdout=subprocess.PIPE)  # fmt: skip
    deaf = process.start(["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.01; done"],
                         stdout=subprocess.PIPE)  # fmt: skip
    for child in (polite, deaf):
        assert child.stdout is not None
        child.stdout.readline()

    assert process.kill(polite, grace=10) == 7
    assert process.kill(deaf, grace=0.2) == -signal.SIGKILL
    for child in (polite, deaf):
        with contextlib.suppress(AttributeError):
            child.stdout.close()  # type: ignore[union-attr]

"""The static C program ``images/probe``: all of it that needs no device."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from harness.model.pattern import pattern
from harness.wait import wait_until

SOURCE = Path(__file__).parents[2] / "images" / "probe"
SUBCOMMANDS = [
    "relay", "run", "mem", "port", "config", "canary", "edu", "vfio", "kvm", "block", "wake",
    "await", "nvme",
]  # fmt: skip
NULL_DEVICE = Path("/sys/devices/virtual/mem/null/uevent")
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="pagemap shows addresses to root only")


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, compiled as the image recipes compile it."""
    program = tmp_path_factory.mktemp("probe") / "probe"
    sources = sorted(SOURCE.glob("*.c"))
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", program, *sources],
        check=True,
    )
    return program


def run(
    program: Path, *words: str | Path, stdin: str = "", status: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [program, *words], input=stdin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status, f"{words}: {done}"
    return done


def answers(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split())


@contextlib.contextmanager
def started(program: Path, *words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def gone(pid: int) -> bool:
    """True when *pid* is no running process; a zombie that waits for its parent counts too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# Teaching and refusing


def test_alone_it_teaches_every_subcommand(probe: Path) -> None:
    listed = re.findall(r"^  (\w+) ", run(probe).stdout, re.MULTILINE)

    assert listed == SUBCOMMANDS
    assert run(probe).stdout == run(probe, "help").stdout


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_a_subcommand_shows_its_syntax(probe: Path, name: str) -> None:
    text = run(probe, "help", name).stdout

    assert f"  probe {name} " in text
    assert run(probe, name, "--help").stdout == text


@pytest.mark.parametrize(
    "words",
    [
        "nonsense",
        "help nonsense",
        "relay",
        "run",
        "run ls",
        "run --env NAME -- ls",
        "run --directory here -- ls",
        f"run --socket /{'x' * 200} -- ls",
        "wake",
        "wake /dev/null",
        "wake /dev/null --",
        "await",
        "await --timeout soon PATH",
        "mem",
        "mem read FILE",
        "mem read FILE 1 --width 4",
        "mem read FILE 0 --width 3",
        "mem read FILE 0 --value 1",
        "mem read FILE -1",
        "mem read FILE 0x",
        "mem read FILE 0 --nonsense",
        "mem read FILE 0 --count",
        "mem read FILE 0 --warm=1",
        "mem write FILE 0",
        "mem words FILE 0 0",
        "port read FILE 0 --width 8",
        "config write 0000:00:00.0 4",
        "canary",
        "canary hold --pages 0",
        "edu",
        "edu dma FILE --address 0 --length 8",
        "edu dma FILE --to-device --from-device --address 0 --length 8",
        "edu dma FILE --to-device --address 0 --length 8 --buffer 0x40ffc",
        "edu poke FILE --address 0x10000000 --value 1",
        "vfio",
        "vfio edu-dma 0000:00:00.0 --iova 1",
        "vfio drive",
        "vfio drive 0000:00:00.0 now",
        "kvm --op mov",
        "kvm --op halt --count 1",
        "kvm --deadline soon",
        "block read FILE 1 512",
        "block write FILE 0 512",
        "nvme",
        "nvme admin FILE",
        "nvme admin FILE 0x100",
        "nvme admin FILE 6 --nsid 0x100000000",
        "nvme admin FILE 6 --data 65537",
        "nvme admin FILE 0x15 --data 4096 --send 0",
        "nvme admin FILE 0x15 --data 4096 --send 0x",
    ],
)
def test_wrong_usage_is_said_with_status_2(probe: Path, words: str) -> None:
    done = run(probe, *words.split(), status=2)

    assert done.stderr.startswith("probe: ")
    assert done.stderr.endswith("see 'probe help'\n")
    assert done.stdout == ""


def test_a_failed_system_call_is_said_with_status_1(probe: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"

    done = run(probe, "mem", "read", missing, "0", status=1)

    assert done.stderr == f"probe: open {missing}: No such file or directory\n"


# relay


@pytest.fixture
def server(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "socket"))
        listener.listen()
        listener.settimeout(30)
        yield listener


def write_all(stream: IO[bytes], data: bytes) -> None:
    with stream:
        stream.write(data)


def test_relay_carries_both_directions_at_once_past_every_buffer(
    probe: Path, server: socket.socket
) -> None:
    there, back = pattern(1, 0, 1_000_001), pattern(2, 0, 1_000_001)

    with started(probe, "relay", server.getsockname()) as process, ThreadPoolExecutor() as side:
        peer, _ = server.accept()
        with peer:
            peer.settimeout(30)
            sent = side.submit(peer.sendall, back)
            received = side.submit(peer.makefile("rb").read, len(there))
            assert process.stdin and process.stdout
            # Closing flushes; the relay passes the end on and goes on with the other half.
            written = side.submit(write_all, process.stdin, there)

            assert process.stdout.read(len(back)) == back
            assert received.result(30) == there
            sent.result(30)
            written.result(30)


def test_relay_passes_the_end_of_stdin_on_and_stays_for_the_reply(
    probe: Path, server: socket.socket
) -> None:
    with started(probe, "relay", server.getsockname()) as process:
        peer, _ = server.accept()
        assert process.stdin and process.stdout
        process.stdin.write(b"question")
        process.stdin.close()
        with peer:
            peer.settimeout(30)
            assert peer.makefile("rb").read() == b"question"
            peer.sendall(b"reply")

        assert process.stdout.read() == b"reply"
        assert process.wait(30) == 0


def test_relay_ends_when_the_socket_does_though_stdin_is_open(
    probe: Path, server: socket.socket
) -> None:
    with started(probe, "relay", server.getsockname()) as process:
        peer, _ = server.accept()
        peer.sendall(b"bye")
        peer.close()

        assert process.stdout and process.stdout.read() == b"bye"
        assert process.wait(30) == 0


def test_relay_waits_for_the_socket_to_appear(probe: Path, tmp_path: Path) -> None:
    path = tmp_path / "late"

    with (
        started(probe, "relay", path, "--wait", "30") as process,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        listener.bind(os.fspath(path))
        listener.listen()
        listener.settimeout(30)
        peer, _ = listener.accept()
        peer.close()
        assert process.wait(30) == 0


def test_relay_says_when_its_deadline_passed(probe: Path, tmp_path: Path) -> None:
    done = run(probe, "relay", tmp_path / "never", "--wait", "0.1", status=3)

    assert "No such file or directory: deadline passed" in done.stderr


# run


def supervised(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout
    return int(answers(process.stdout.readline().decode())["pid"])


def test_run_reports_the_exit_status(probe: Path) -> None:
    with started(probe, "run", "--", "sh", "-c", "exit 7") as process:
        assert process.stdout
        assert answers(process.stdout.read().decode()).items() >= {
            ("ended", "itself"),
            ("exit", "7"),
        }
        assert process.wait(30) == 0


def test_run_reports_the_signal(probe: Path) -> None:
    with started(probe, "run", "--", "sh", "-c", "kill -TERM $$") as process:
        assert process.stdout
        assert answers(process.stdout.read().decode())["signal"] == str(int(signal.SIGTERM))


def test_run_kills_the_group_when_stdin_ends(probe: Path) -> None:
    with started(probe, "run", "--", "sleep", "1000") as process:
        pid = supervised(process)
        assert os.getpgid(pid) == pid
        assert not gone(pid)
        assert process.stdin and process.stdout
        process.stdin.close()

        assert answers(process.stdout.read().decode()) == {"ended": "eof", "signal": "9"}
        assert gone(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_run_kills_when_it_is_told_to_end(probe: Path, number: signal.Signals) -> None:
    with started(probe, "run", "--", "sleep", "1000") as process:
        pid = supervised(process)
        process.send_signal(number)

        assert process.stdout
        assert answers(process.stdout.read().decode()) == {"ended": "signal", "signal": "9"}
        assert gone(pid)


def test_run_leaves_nothing_even_when_it_is_killed(probe: Path) -> None:
    with started(probe, "run", "--", "sleep", "1000") as process:
        pid = supervised(process)
        process.kill()
        process.wait(30)

        wait_until("the child to be gone", lambda: gone(pid) or None, timeout=30)


def test_run_kills_grandchildren_that_left_the_session(probe: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"  # apart from the answers: the program may speak before the first
    script = "setsid sh -c 'echo $$; sleep 1000' & wait"
    with started(probe, "run", "--log", log, "--", "sh", "-c", script) as p:
        supervised(p)
        assert p.stdin and p.stdout
        grandchild = int(wait_until("the grandchild's line", lambda: line_of(log), timeout=30))
        assert not gone(grandchild)
        p.stdin.close()

        assert answers(p.stdout.read().decode())["ended"] == "eof"
        assert gone(grandchild)


def test_run_kills_what_the_program_leaves_behind(probe: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "setsid sh -c 'exec sleep 1000' & echo $!"
    with started(probe, "run", "--log", log, "--", "sh", "-c", script) as process:
        supervised(process)
        assert process.stdout

        assert answers(process.stdout.read().decode()) == {"ended": "itself", "exit": "0"}
        assert gone(int(line_of(log) or "0"))


def test_run_shows_and_removes_the_directory_it_made(probe: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    script = f"printf 'no line end' > {made}/said; mkfifo {made}/pipe; ln -s said {made}/link; :"
    words: list[str | Path] = [
        "--directory",
        made,
        "--log",
        made / "log",
        "--",
        "sh",
        "-c",
        f"{script} > {made}/e",
    ]
    with started(probe, "run", *words) as process:
        supervised(process)
        assert process.stdout
        said = process.stdout.read().decode()

    status, _, files = said.partition("exit=0\n")
    assert status == "ended=itself\n"
    assert sorted(re.findall(r"file=(\S+) size=(\d+)\n(no line end)?", files)) == [
        ("e", "0", ""), ("log", "0", ""), ("said", "11", "no line end"),
    ]  # fmt: skip
    assert files.endswith("shown=3\n")
    assert not made.exists()


@pytest.mark.parametrize("words", [["/nonexistent/program"], ["sleep", "1000"]])
def test_run_leaves_no_directory_whatever_happens(
    probe: Path, tmp_path: Path, words: list[str]
) -> None:
    made = tmp_path / "made"
    with started(probe, "run", "--directory", made, "--", *words) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        process.stdout.close()  # nobody wants to know
        process.stdin.close()
        process.wait(30)

    assert not made.exists()


def test_run_takes_no_directory_that_is_there(probe: Path, tmp_path: Path) -> None:
    done = run(probe, "run", "--directory", tmp_path, "--", "true", status=1)

    assert "File exists" in done.stderr
    assert tmp_path.exists()


def line_of(log: Path) -> str | None:
    """The first line of a file, None until it is whole."""
    line, end, _ = (log.read_text() if log.exists() else "").partition("\n")
    return line if end else None


def test_run_appends_both_outputs_to_the_log(probe: Path, tmp_path: Path) -> None:
    log, missing = tmp_path / "log", tmp_path / "missing"
    log.write_text("before\n")
    script = f"echo $NAME; cat {missing} >&2; cat"  # the last: stdin is empty, not ours

    with started(
        probe, "run", "--log", log, "--env", "NAME=a=b", "--", "sh", "-c", script
    ) as process:
        supervised(process)
        assert process.stdout
        assert answers(process.stdout.read().decode())["exit"] == "0"

    text = log.read_text()
    assert text.startswith("before\na=b\n")
    assert str(missing) in text


def test_run_keeps_a_pidfile_while_the_program_lives(probe: Path, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"

    with started(probe, "run", "--pidfile", pidfile, "--", "sleep", "1000") as process:
        pid = supervised(process)
        wait_until("the pidfile", lambda: pidfile.exists() or None, timeout=30)
        assert pidfile.read_text() == f"{pid}\n"
        assert process.stdin and process.stdout
        process.stdin.close()
        process.stdout.read()

    assert not pidfile.exists()


def test_run_says_that_a_program_does_not_exist(probe: Path) -> None:
    done = run(probe, "run", "--", "/nonexistent/program", status=1)

    assert done.stderr == "probe: start /nonexistent/program: No such file or directory\n"
    assert done.stdout == ""


@contextlib.contextmanager
def background(
    program: Path, place: Path, *words: str | Path
) -> Iterator[tuple[Path, socket.socket]]:
    """A program that goes on in the background: its socket, and a first visitor."""
    path = place / "door"
    if "--log" not in words:
        words = ("--log", place / "log", *words)
    assert run(program, "run", "--socket", path, *words).stdout.startswith("pid=")
    with visitor(path) as first:
        try:
            yield path, first
        finally:
            with contextlib.suppress(OSError):
                first.shutdown(socket.SHUT_WR)
                first.makefile("rb").read()


def visitor(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(30)
    made.connect(os.fspath(path))
    return made


def first_line(stream: socket.socket) -> dict[str, str]:
    said = b""
    while not said.endswith(b"\n"):
        said += stream.recv(1)
    return answers(said.decode())


def last_words(stream: socket.socket) -> str:
    return stream.makefile("rb").read().decode()


def test_run_in_the_background_tells_each_visitor_the_same_program(
    probe: Path, tmp_path: Path
) -> None:
    with background(probe, tmp_path, "--", "sleep", "1000") as (door, first):
        pid = int(first_line(first)["pid"])
        first.sendall(b"stay\n")
        first.shutdown(socket.SHUT_WR)
        assert last_words(first) == ""
        assert not gone(pid)

        with visitor(door) as second:
            assert first_line(second) == {"pid": str(pid)}
            second.shutdown(socket.SHUT_WR)
            assert answers(last_words(second)) == {"ended": "eof", "signal": "9"}
        assert gone(pid)


def test_run_in_the_background_ends_with_a_visitor_who_does_not_ask_it_to_stay(
    probe: Path, tmp_path: Path
) -> None:
    with background(probe, tmp_path, "--", "sleep", "1000") as (_, first):
        pid = int(first_line(first)["pid"])
        first.sendall(b"star\n")
        first.close()

        wait_until("the program to be gone", lambda: gone(pid) or None, timeout=30)


def test_run_in_the_background_takes_one_visitor_after_another(
    probe: Path, tmp_path: Path
) -> None:
    with background(probe, tmp_path, "--", "sleep", "1000") as (door, first):
        first_line(first)
        with visitor(door) as early:
            first.sendall(b"stay\n")
            first.shutdown(socket.SHUT_WR)
            assert last_words(first) == ""
            pid = int(first_line(early)["pid"])
            # What the one before said is no word of this one.
            early.shutdown(socket.SHUT_WR)
            assert answers(last_words(early))["ended"] == "eof"
        assert gone(pid)


def test_run_in_the_background_keeps_the_end_and_the_files_for_who_comes_next(
    probe: Path, tmp_path: Path
) -> None:
    made, log = tmp_path / "made", tmp_path / "made" / "log"
    goes = tmp_path / "goes"
    script = f"until [ -e {goes} ]; do sleep 0.01; done; echo the end; exit 7"
    words: list[str | Path] = ["--directory", made, "--log", log, "--", "sh", "-c", script]
    with background(probe, tmp_path, *words) as (door, first):
        pid = int(first_line(first)["pid"])
        first.sendall(b"stay\n")
        first.shutdown(socket.SHUT_WR)
        assert last_words(first) == ""
        goes.touch()
        wait_until("the program to be gone", lambda: gone(pid) or None, timeout=30)

        with visitor(door) as second:
            assert last_words(second) == (
                f"pid={pid}\nended=itself\nexit=7\nfile=log size=8\nthe end\nshown=1\n"
            )
    wait_until("the directory to be gone", lambda: not made.exists() or None, timeout=30)


def test_run_in_the_background_refuses_what_it_cannot_start(probe: Path, tmp_path: Path) -> None:
    door, made = tmp_path / "door", tmp_path / "made"
    words: list[str | Path] = ["--socket", door, "--directory", made, "--", "/nonexistent/program"]

    done = run(probe, "run", *words, status=1)

    assert done.stderr == "probe: start /nonexistent/program: No such file or directory\n"
    assert done.stdout == ""
    assert not made.exists()
    with pytest.raises(ConnectionRefusedError):
        visitor(door)


def test_run_in_the_background_refuses_a_socket_that_is_there(probe: Path, tmp_path: Path) -> None:
    (tmp_path / "door").touch()

    done = run(probe, "run", "--socket", tmp_path / "door", "--", "sleep", "1000", status=1)

    assert "Address already in use" in done.stderr


# await


def test_await_tells_every_match_of_what_is_there(probe: Path, tmp_path: Path) -> None:
    for name in ("a1", "a2", "b1"):
        (tmp_path / name).touch()

    done = run(probe, "await", "--timeout", "0", f"{tmp_path}/a*", f"{tmp_path}/b?")

    assert sorted(done.stdout.split()) == [f"path={tmp_path}/{n}" for n in ("a1", "a2", "b1")]


def test_await_names_the_first_pattern_that_is_missing_at_the_deadline(
    probe: Path, tmp_path: Path
) -> None:
    (tmp_path / "here").touch()
    words = [f"{tmp_path}/here", f"{tmp_path}/no*", f"{tmp_path}/neither"]

    done = run(probe, "await", "--timeout", "0.05", *words, status=3)

    assert done.stderr == f"probe: {tmp_path}/no* did not appear: deadline passed\n"
    assert done.stdout == ""


@pytest.mark.skipif(
    not os.access(NULL_DEVICE, os.W_OK), reason="only root can have the kernel tell an event"
)
def test_await_looks_again_when_the_kernel_tells_something(probe: Path, tmp_path: Path) -> None:
    with started(probe, "await", "--timeout", "1000", tmp_path / "new") as process:
        stat = Path(f"/proc/{process.pid}/stat")
        wait_until(
            "it waits", lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", timeout=30
        )
        (tmp_path / "new").touch()
        NULL_DEVICE.write_text("change")  # tells, and changes nothing

        assert process.wait(30) == 0


# wake: only what it refuses; what it does to a system is seen in a booted one


GOOD = {
    "clock": "1700000000.000000001", "entropy": "Wlpa" * 20, "machine": "0123456789abcdef" * 2,
    "authorized": "AAAAC3NzaC1lZDI1NTE5AAAAIA==", "hostkey": "AAAA" * 21 + "AA",
}  # fmt: skip


@pytest.fixture(scope="module")
def wake_line(probe: Path) -> Iterator[IO[bytes]]:
    """The other end of a line on which somebody without any rights listens.

    So it cannot touch the clock, the keys or the identity of this computer.
    """
    ours, theirs = os.openpty()
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        program = shutil.copy(probe, place)
        os.chmod(program, 0o755)
        line = os.ttyname(theirs)
        os.chmod(line, 0o666)
        words = [program, "wake", line, "--", "true"]
        nobody = NOBODY if os.geteuid() == 0 else None
        groups = None if nobody is None else [nobody]
        subprocess.run(
            words, check=True, timeout=60, user=nobody, group=nobody, extra_groups=groups
        )
        mark = b"\0".join(os.fsencode(word) for word in words)
        (pid,) = [
            int(entry.parent.name)
            for entry in Path("/proc").glob("[0-9]*/cmdline")
            if mark in _bytes(entry)
        ]
        try:
            with os.fdopen(ours, "r+b", buffering=0) as stream:
                yield stream
        finally:
            os.kill(pid, signal.SIGKILL)
            os.close(theirs)


def _bytes(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def line_of_words(words: dict[str, str]) -> bytes:
    return " ".join(f"{name}={value}" for name, value in words.items()).encode() + b"\n"


def reply(line: IO[bytes], said: bytes) -> str:
    line.write(said)
    answer = b""
    while not answer.endswith(b"\n"):
        ready, _, _ = select.select([line], [], [], 30)
        assert ready, f"no answer to {said!r}, only {answer!r}"
        answer += line.read(1)
    return answer.decode().strip()


@pytest.mark.parametrize("missing", GOOD)
def test_wake_names_the_word_that_is_missing(wake_line: IO[bytes], missing: str) -> None:
    words = {name: value for name, value in GOOD.items() if name != missing}

    assert reply(wake_line, line_of_words(words)).startswith(f"refused {missing}=: ")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("clock", ""),
        ("clock", "soon"),
        ("clock", "-1.000000000"),
        ("clock", "1700000000."),
        ("clock", "1700000000.5"),
        ("clock", "1700000000.0000000001"),
        ("clock", "1700000000x000000000"),
        ("clock", "9" * 13),
        ("entropy", ""),
        ("entropy", "Wlpa" * 10),
        ("entropy", "Wlpa" * 22),
        ("entropy", "Wlpa" * 11 + "W"),
        ("entropy", "Wl-a" * 11),
        ("machine", "0" * 31),
        ("machine", "0" * 33),
        ("machine", "x" * 32),
        ("machine", "../" + "0" * 29),
        ("authorized", ""),
        ("authorized", "AAAA$(reboot)"),
        ("authorized", "A" * 161),
        ("hostkey", ""),
        ("hostkey", "AAAA" * 21),
        ("hostkey", "AAAA" * 22),
        ("hostkey", "AA=A" * 21 + "AA"),
    ],
)
def test_wake_refuses_a_word_it_does_not_understand_before_it_does_anything(
    wake_line: IO[bytes], word: str, value: str
) -> None:
    said = reply(wake_line, line_of_words({**GOOD, word: value}))

    assert said == f"refused {word}: Invalid argument"


def test_wake_says_what_it_may_not_do(wake_line: IO[bytes]) -> None:
    assert reply(wake_line, line_of_words(GOOD)) == "refused clock: Operation not permitted"


@pytest.mark.parametrize(
    "noise",
    [b"\n", b"\0\xff\0\n", b"x" * 5000 + b"\n", b"\0" * 4095 + b"\n", b"awake\n"],
    ids=["empty line", "zeros", "longer than its room", "as long as its room", "echo"],
)
def test_wake_answers_after_noise(wake_line: IO[bytes], noise: bytes) -> None:
    assert reply(wake_line, noise).startswith("refused clock=: ")

    assert reply(wake_line, line_of_words(GOOD)) == "refused clock: Operation not permitted"


def test_wake_answers_each_of_two_lines_that_come_at_once(wake_line: IO[bytes]) -> None:
    good = line_of_words(GOOD)

    assert "Operation not permitted" in reply(wake_line, good + good)
    assert "Operation not permitted" in reply(wake_line, b"")


def test_wake_wants_a_serial_line(probe: Path) -> None:
    assert "is no serial line" in run(probe, "wake", "/dev/null", "--", "true", status=1).stderr


# mem, config


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page"
    path.write_bytes(bytes(range(256)) * 32)
    return path


@pytest.mark.parametrize(
    ("width", "value"),
    [("1", "0x08"), ("2", "0x0908"), ("4", "0x0b0a0908"), ("8", "0x0f0e0d0c0b0a0908")],
)
def test_mem_reads_each_width(probe: Path, page: Path, width: str, value: str) -> None:
    done = run(probe, "mem", "read", page, "0x1008", "--width", width, "--count", "1000", "--warm")

    assert answers(done.stdout) == {"first": value, "last": value, "equal": "yes", "done": "1000"}


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_mem_writes_each_width_and_nothing_beside(probe: Path, page: Path, width: int) -> None:
    value = int.from_bytes(bytes(range(0xF8, 0xF8 + width)), "little")
    before = page.read_bytes()

    run(probe, "mem", "write", page, "0x1008", "--width", str(width), "--value", hex(value))

    after = value.to_bytes(width, "little")
    assert page.read_bytes() == before[:0x1008] + after + before[0x1008 + width :]


def test_mem_dumps_words(probe: Path, page: Path) -> None:
    done = run(probe, "mem", "words", page, "4", "3")

    assert answers(done.stdout) == {"words": "07060504,0b0a0908,0f0e0d0c", "done": "3"}


def test_mem_reports_sigbus_as_an_answer(probe: Path, page: Path) -> None:
    os.truncate(page, 4096)

    read = run(probe, "mem", "read", page, "0x1000", "--count", "5")
    write = run(probe, "mem", "write", page, "0x1000", "--value", "1")

    assert answers(read.stdout) == {"fault": "sigbus", "done": "0"}
    assert answers(write.stdout)["fault"] == "sigbus"


def test_mem_dump_keeps_what_came_before_sigbus(probe: Path, page: Path) -> None:
    os.truncate(page, 4096)

    done = run(probe, "mem", "words", page, "0xff8", "4")

    assert answers(done.stdout) == {"words": "fbfaf9f8,fffefdfc", "fault": "sigbus", "done": "2"}


def test_mem_finds_a_bar_that_starts_inside_its_page(probe: Path, tmp_path: Path) -> None:
    """As sysfs does it: the mapping starts at the page, ``resource`` says where the BAR does."""
    (tmp_path / "resource1").write_bytes(pattern(3, 0, 4096))
    (tmp_path / "resource").write_text(
        "0x0 0x0 0x0\n0x00000000febf1100 0x00000000febf11ff 0x0000000000040200\n"
    )

    done = run(probe, "mem", "read", tmp_path / "resource1", "8", "--width", "8")

    want = int.from_bytes(pattern(3, 0x108, 8), "little")
    assert answers(done.stdout)["first"] == f"0x{want:016x}"


def test_config_reads_and_writes_the_file_it_is_given(probe: Path, page: Path) -> None:
    run(probe, "config", "write", page, "4", "--width", "2", "--value", "0x406")

    done = run(probe, "config", "read", page, "4", "--width", "2", "--count", "3")

    assert answers(done.stdout) == {
        "first": "0x0406",
        "last": "0x0406",
        "equal": "yes",
        "done": "3",
    }


def test_config_reading_past_the_end_is_an_error(probe: Path, page: Path) -> None:
    done = run(probe, "config", "read", page, "0x2000", status=1)

    assert "0 bytes of 4" in done.stderr


# edu: a file has registers that hold what is written, which is a device that hangs


@pytest.fixture
def hanging_edu(tmp_path: Path) -> Path:
    path = tmp_path / "resource0"
    path.write_bytes((0x010000ED).to_bytes(4, "little") + bytes(4092))
    return path


def test_edu_tells_a_device_that_does_not_answer(probe: Path, hanging_edu: Path) -> None:
    done = run(probe, "edu", "id", hanging_edu)

    assert answers(done.stdout) == {"id": "0x010000ed", "liveness": "0x12345678", "live": "no"}


def test_edu_dma_gives_up_at_its_deadline(probe: Path, hanging_edu: Path) -> None:
    words = ["--to-device", "--address", "0x1234567000", "--length", "8", "--timeout", "0.05"]

    done = run(probe, "edu", "dma", hanging_edu, *words, status=3)

    assert done.stderr == "probe: DMA: register 0x98 is still 0x00000001: deadline passed\n"
    registers = hanging_edu.read_bytes()
    source, destination, count = (
        int.from_bytes(registers[at : at + 8], "little") for at in (0x80, 0x88, 0x90)
    )
    assert (source, destination, count) == (0x1234567000, 0x40000, 8)


def test_edu_refuses_another_device(probe: Path, page: Path) -> None:
    done = run(probe, "edu", "id", page, status=1)

    assert done.stderr == "probe: not an edu device: id register is 0x03020100\n"


# canary


@needs_root
def test_canary_tells_its_addresses_and_stays_intact(probe: Path) -> None:
    done = run(probe, "canary", "hold", "--pages", "2", stdin="check\n")

    first, second, ready, check = (answers(line) for line in done.stdout.splitlines())
    assert int(first["phys"], 16) % 4096 == int(second["phys"], 16) % 4096 == 0
    assert first["phys"] != second["phys"]
    assert ready == {"ready": "yes"}
    assert check["intact"] == "yes"


@needs_root
def test_canary_finds_the_byte_that_changed(probe: Path) -> None:
    with started(probe, "canary", "hold", "--pages", "2", "--value", "0x11") as process:
        assert process.stdin and process.stdout
        lines = [answers(process.stdout.readline().decode()) for _ in range(3)]
        with open(f"/proc/{process.pid}/mem", "wb", buffering=0) as memory:
            memory.seek(int(lines[1]["virt"], 16) + 0x12)
            memory.write(b"\xaa")
        out, _ = process.communicate(b"check\ndump 0x1010 4\nfill 5\ncheck\n", timeout=30)

    check, dump, filled, again = (answers(line) for line in out.decode().splitlines())
    assert check.items() >= {
        ("intact", "no"),
        ("first_diff", "0x1012"),
        ("value", "0x0000000000aa0011"),
        ("bytes", "1"),
    }
    assert dump == {"data": "1100aa00"}
    assert filled == {"filled": "0x0000000000000005"}
    assert again["intact"] == "yes"


@needs_root
def test_canary_answers_every_line_it_does_not_understand(probe: Path) -> None:
    done = run(probe, "canary", "hold", stdin="what\nfill\n\ndump 0 5000\n")

    assert done.stdout.splitlines()[2:] == ["error=command"] * 3 + ["error=range"]


# kvm


@pytest.mark.parametrize("words", ["", "--op mov --count 1000", "--op cpuid --count 1000"])
def test_kvm_answers_whatever_kvm_is_here(probe: Path, words: str) -> None:
    done = subprocess.run(
        [probe, "kvm", "--deadline", "2", *words.split()],
        capture_output=True,
        text=True,
        timeout=60,
    )

    said = answers(done.stdout)
    assert (said["kvm"], done.returncode) in {("ok", 0), ("no", 1), ("no", 3)}, done
    assert said.get("rax") == "7" or said["reason"]


def test_kvm_does_not_wait_for_a_guest_that_never_halts(probe: Path) -> None:
    done = subprocess.run(
        [probe, "kvm", "--deadline", "0.2", "--op", "mov", "--count", "0xffffffffffffffff"],
        capture_output=True,
        text=True,
        timeout=60,
    )

    said = answers(done.stdout)
    assert said["kvm"] == "no"
    assert (done.returncode == 3) == (said["reason"] in {"deadline", "stuck"})


# block


def test_block_and_python_agree_on_the_pattern(probe: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(2 << 20))
    want = pattern(0xFEED, 4096, 1 << 20)

    written = run(probe, "block", "write", disk, "4096", "1M", "--pattern", "0xfeed")
    read = run(probe, "block", "read", disk, "4k", "0x100000", "--pattern", "0xfeed")

    assert disk.read_bytes() == bytes(4096) + want + bytes((1 << 20) - 4096)
    assert answers(written.stdout)["crc32"] == f"0x{zlib.crc32(want):08x}"
    assert answers(read.stdout).items() >= {
        ("crc32", f"0x{zlib.crc32(want):08x}"),
        ("match", "yes"),
    }


def test_block_says_where_the_pattern_is_broken(probe: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    data = bytearray(pattern(1, 0, 1 << 20))
    data[700_000] ^= 1
    disk.write_bytes(data)

    done = run(probe, "block", "read", disk, "4096", "512k", "--pattern", "1")
    broken = run(probe, "block", "read", disk, "0", "1M", "--pattern", "1")

    assert answers(done.stdout)["match"] == "yes"
    assert answers(broken.stdout).items() >= {("match", "no"), ("first_diff", hex(700_000))}


def test_block_reading_past_the_end_is_an_error(probe: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))

    done = run(probe, "block", "read", disk, "0", "8192", status=1)

    assert done.stderr == f"probe: {disk} ends at 0x1000\n"


# nvme


def test_nvme_says_that_a_file_takes_no_commands(probe: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    done = run(probe, "nvme", "admin", file, "6", "--data", "4096", status=1)

    assert done.stderr.startswith(f"probe: command 0x6 of {file}: ")

"""SSH: who is let in, what happens when the other side goes, processes over there."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest

from harness.errors import MachineDied, Unreachable
from harness.guest.keys import make_key
from harness.guest.ssh import KnownHost, SshTransport
from harness.wait import wait_until

LogIn = Callable[..., SshTransport]


# -- who is let in ----------------------------------------------------------------------------


def test_known_key_is_accepted(log_in: LogIn, server: Any) -> None:
    assert log_in(host_key=server.known_hosts_line).run("echo in").stdout == "in\n"


def test_another_host_key_is_refused_at_once(log_in: LogIn, tmp_path: Path) -> None:
    other = paramiko.ECDSAKey.generate()

    with pytest.raises(Unreachable, match="not who it should be"):
        log_in(host_key=f"{other.get_name()} {other.get_base64()}")


def test_wrong_key_of_ours_is_refused_at_once(log_in: LogIn, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()

    with pytest.raises(Unreachable, match="refuses us") as refused:
        log_in(key=make_key(tmp_path / "other").private)

    assert "may this user log in" in refused.value.hint


def test_host_in_known_hosts_is_accepted(log_in: LogIn, server: Any, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"[lab.example]:2222 {server.known_hosts_line}\n")

    assert log_in(known=KnownHost("lab.example", 2222, file)).run("echo in").stdout == "in\n"


def test_host_not_in_known_hosts_is_refused(log_in: LogIn, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text("")

    with pytest.raises(Unreachable) as refused:
        log_in(known=KnownHost("lab.example", 22, file))

    assert "known_hosts=FILE" in refused.value.hint


def test_loopback_host_may_be_new(log_in: LogIn) -> None:
    known = KnownHost("127.0.0.1", 2222, trust_new=True)

    assert log_in(known=known).run("echo in").stdout == "in\n"


def test_log_in_tries_again_until_somebody_answers(server: Any) -> None:
    refusals = iter([OSError("refused"), OSError("refused")])

    def dial() -> socket.socket:
        for error in refusals:
            raise error
        answer: socket.socket = server.dial()
        return answer

    transport = SshTransport("fake", dial, key=server.key.private)
    transport.log_in(timeout=30)

    assert transport.run("echo in").stdout == "in\n"
    transport.close()


def test_packets_over_tcp_do_not_wait_for_each_other(server: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        server.serve(theirs)
        transport = SshTransport("fake", lambda: ours, key=server.key.private)
        transport.log_in(timeout=30)

        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert transport.run("echo in").stdout == "in\n"
        transport.close()


def test_log_in_that_nobody_answers_says_the_last_cause(tmp_path: Path) -> None:
    def dial() -> socket.socket:
        raise ConnectionRefusedError("nobody there")

    transport = SshTransport("fake", dial, key=make_key(tmp_path).private)

    with pytest.raises(Unreachable) as silent:
        transport.log_in(timeout=0.2)
    assert "nobody there" in silent.value.seen


# -- the other side goes ----------------------------------------------------------------------


def test_guard_ends_a_wait_with_the_true_cause(log_in: LogIn) -> None:
    dead = threading.Event()

    def guard() -> None:
        if dead.is_set():
            raise MachineDied("QEMU exited with 1")

    transport = log_in(guards=(guard,))
    timer = threading.Timer(0.3, dead.set)
    timer.start()

    with pytest.raises(MachineDied):
        transport.run("sleep 60", timeout=60)
    timer.join()


def test_guard_ends_a_conversation_with_the_true_cause(log_in: LogIn) -> None:
    dead = threading.Event()

    def guard() -> None:
        if dead.is_set():
            raise MachineDied("QEMU exited with 1")

    talk = log_in(guards=(guard,)).open("cat")
    dead.set()

    with pytest.raises(MachineDied):
        talk.receive(timeout=60)
    talk.close()


def test_connection_that_breaks_during_a_command_is_told(ssh: SshTransport, server: Any) -> None:
    timer = threading.Timer(0.3, server.cut)
    timer.start()

    with pytest.raises(Unreachable, match="the connection ended during 'echo before"):
        ssh.run("echo before; sleep 60", timeout=60)
    timer.join()


def test_nothing_can_be_run_after_the_connection_broke(ssh: SshTransport, server: Any) -> None:
    def is_noticed() -> bool:
        try:
            ssh.check()
        except Unreachable as error:
            return "connection is gone" in error.summary
        return False

    server.cut()
    wait_until("the loss is noticed", is_noticed, timeout=30)

    with pytest.raises(Unreachable, match="connection is gone"):
        ssh.run("true")


def test_read_that_breaks_is_no_short_file(ssh: SshTransport, server: Any, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    make_silent_pipe(pipe)
    timer = threading.Timer(0.3, server.cut)
    timer.start()

    with pytest.raises(Unreachable):
        ssh.read(str(pipe))
    timer.join()


def test_closed_transport_can_log_in_again(ssh: SshTransport) -> None:
    ssh.close()
    with pytest.raises(Unreachable, match="not logged in"):
        ssh.run("true")

    ssh.log_in(timeout=30)

    assert ssh.run("echo back").stdout == "back\n"


def test_a_silent_transport_says_nothing_unasked_and_neither_do_those_it_carries(
    log_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, int]] = []
    outer, inner = log_in(), log_in()
    outer.carries(inner)

    def note(transport: paramiko.Transport, seconds: int) -> None:
        said.append((transport.getName(), seconds))

    monkeypatch.setattr(paramiko.Transport, "set_keepalive", note)
    outer.fall_silent()
    assert [seconds for _, seconds in said] == [0, 0]
    assert len({name for name, _ in said}) == 2

    outer.speak_up()
    assert [seconds for _, seconds in said] == [0, 0, 15, 15]
    assert outer.run("echo here").stdout == "here\n"


def test_silent_server_costs_the_time_of_the_command_only(ssh: SshTransport, server: Any) -> None:
    server.mute = True

    with pytest.raises(Unreachable, match="did not end within"):
        ssh.run("true", timeout=0.5)


# -- programs and sockets over there ----------------------------------------------------------


def test_program_runs_until_it_is_killed(log_in: LogIn, probe: str, tmp_path: Path) -> None:
    ssh = log_in(probe=probe)
    log = tmp_path / "log"

    process = ssh.start(
        ["sh", "-c", "echo $WORD; exec sleep 600"], env={"WORD": "hello"}, log=str(log)
    )
    wait_until("first word", lambda: log.exists() and log.read_text(), timeout=30)

    assert log.read_text() == "hello\n"
    assert process.poll() is None
    assert Path(f"/proc/{process.pid}").exists()
    assert process.kill() == -9
    assert not Path(f"/proc/{process.pid}").exists()
    assert process.kill() == -9


@pytest.mark.parametrize("status", [0, 3])
def test_end_of_a_program_is_seen_with_its_status(
    log_in: LogIn, probe: str, tmp_path: Path, status: int
) -> None:
    ssh = log_in(probe=probe)

    process = ssh.start(["sh", "-c", f"exit {status}"], env={}, log=str(tmp_path / "log"))

    wait_until("end", lambda: process.poll() is not None, timeout=30)

    assert process.poll() == status
    assert process.kill() == status


def test_program_ended_by_a_signal_says_which(log_in: LogIn, probe: str, tmp_path: Path) -> None:
    process = log_in(probe=probe).start(
        ["sh", "-c", "kill -6 $$"], env={}, log=str(tmp_path / "log")
    )

    wait_until("end", lambda: process.poll() is not None, timeout=30)

    assert process.poll() == -6


def test_program_dies_with_the_connection(
    log_in: LogIn, server: Any, probe: str, tmp_path: Path
) -> None:
    process = log_in(probe=probe).start(["sleep", "600"], env={}, log=str(tmp_path / "log"))

    server.cut()

    wait_until("end there", lambda: not Path(f"/proc/{process.pid}").exists(), timeout=30)
    wait_until("end seen here", lambda: process.poll() is not None, timeout=30)


def test_files_that_were_lost_with_the_connection_are_not_called_empty(
    log_in: LogIn, server: Any, probe: str, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    process = log_in(probe=probe).start(
        ["sleep", "600"], env={}, log=f"{made}/log", directory=str(made)
    )

    assert process.wait(0.01) is None
    server.cut()

    assert process.wait(30) == -9
    with pytest.raises(Unreachable, match="before all that the program left"):
        process.left()
    wait_until("directory gone", lambda: not made.exists(), timeout=30)


def test_program_that_is_not_there_cannot_be_started(
    log_in: LogIn, probe: str, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=r"probe run: .*no-such-program"):
        log_in(probe=probe).start(["/no-such-program"], env={}, log=str(tmp_path / "log"))


def test_helper_that_is_not_there_is_named(log_in: LogIn, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no-probe"):
        log_in(probe="/no-probe").start(["true"], env={}, log=str(tmp_path / "log"))


def test_unix_socket_over_there_becomes_one_here(
    log_in: LogIn, probe: str, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        ours = log_in(probe=probe).connect(str(path), timeout=10)
        theirs, _ = listener.accept()

        ours.sendall(b"ping")
        assert theirs.recv(100) == b"ping"
        theirs.sendall(b"pong")
        assert ours.recv(100) == b"pong"
        theirs.close()
        assert ours.recv(100) == b""
        ours.close()


def make_silent_pipe(path: Path) -> None:
    """Make a pipe that nobody writes to: reading it never ends."""
    os.mkfifo(path)

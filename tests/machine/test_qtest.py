"""The qtest client against a server that says what it is told to."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from harness.errors import MachineDied, QmpFailed
from harness.machine.qtest import Qtest, config_write

Answer = Callable[[str], str]


@contextlib.contextmanager
def talking_to(answer: Answer) -> Iterator[tuple[Qtest, list[str]]]:
    """A client of a server that answers each line by *answer*; '' hangs up, None is silence."""
    near, far = socket.socketpair()
    asked: list[str] = []

    def serve() -> None:
        with far, far.makefile("r") as lines:
            for line in lines:
                asked.append(line.strip())
                said = answer(line.strip())
                if not said:
                    return
                far.sendall(f"{said}\n".encode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    client = Qtest(near, timeout=5)
    try:
        yield client, asked
    finally:
        client.close()
        thread.join(5)


def test_commands_go_in_one_piece_and_answers_come_in_order() -> None:
    with talking_to(lambda line: f"OK {line[-1]}") as (qtest, asked):
        assert qtest.run(["inl 0x1", "inl 0x2", "inl 0x3"]) == ["1", "2", "3"]
        assert asked == ["inl 0x1", "inl 0x2", "inl 0x3"]


def test_nothing_to_say_is_not_said() -> None:
    with talking_to(lambda _: "OK") as (qtest, asked):
        assert qtest.run([]) == []
        assert not asked


def test_ports_and_memory_are_written_and_read_in_hex() -> None:
    with talking_to(lambda line: "OK 0xff" if line.startswith(("in", "read")) else "OK") as (
        qtest,
        asked,
    ):
        qtest.out(0xCF8, 0x80000000)
        qtest.write(0xFEE00000, 1, 8)

        assert (qtest.in_(0xCFC, 2), qtest.read(0x1000, 1)) == (0xFF, 0xFF)
        assert asked == [
            "outl 0xcf8 0x80000000", "writeq 0xfee00000 0x1", "inw 0xcfc", "readb 0x1000",
        ]  # fmt: skip


def test_configuration_space_is_reached_by_its_two_ports() -> None:
    assert config_write(1, 2, 3, 0x16, 0xABCD, 2) == ["outl 0xcf8 0x80011314", "outw 0xcfe 0xabcd"]

    with talking_to(lambda line: "OK 0x8086" if line.startswith("in") else "OK") as (qtest, asked):
        qtest.config_write(0, 5, 0, 4, 7, 2)

        assert qtest.config_read(0, 5, 0, 0, 2) == 0x8086
        assert asked[-2:] == ["outl 0xcf8 0x80002800", "inw 0xcfc"]


def test_interrupts_between_answers_are_passed_over() -> None:
    with talking_to(lambda _: "IRQ raise 4\nOK 0x1") as (qtest, _):
        assert qtest.in_(0x60, 1) == 1


def test_a_refusal_says_command_and_answer() -> None:
    with (
        talking_to(lambda _: "FAIL Unknown command 'jump'") as (qtest, _),
        pytest.raises(QmpFailed, match="refused 'jump'") as failed,
    ):
        qtest.run(["jump"])
    assert "Unknown command" in failed.value.description


def test_a_qemu_that_is_gone_is_told_from_one_that_is_silent() -> None:
    with talking_to(lambda _: "") as (qtest, _), pytest.raises(MachineDied, match="during 'inb"):
        qtest.run(["inb 0x60"])

    near, far = socket.socketpair()
    with far:
        qtest = Qtest(near, timeout=0.01)
        with pytest.raises(QmpFailed, match="no answer to 'inb 0x60'"):
            qtest.run(["inb 0x60"])
        qtest.close()


def test_bytes_of_memory_are_written_and_read_in_one_command() -> None:
    with talking_to(lambda line: "OK 0x00ff10" if line.startswith("read") else "OK") as (
        qtest,
        asked,
    ):
        qtest.put(0x1000, b"\x00\xff")

        assert qtest.get(0x2000, 3) == b"\x00\xff\x10"
        assert asked == ["write 0x1000 0x2 0x00ff", "read 0x2000 0x3"]

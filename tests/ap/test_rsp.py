"""The client of the gdbstub, against a stub of ours."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ap.rsp import (
    LARGEST_READ,
    GdbFailed,
    GdbGone,
    Rsp,
    register_packet,
    write_packet,
)
from harness.ap.rsp_log import FIRST, LAST, RspLog
from harness.ap.rsp_packet import encode_packet
from harness.errors import HarnessError, WaitTimeout

if TYPE_CHECKING:
    from tests.ap.conftest import FakeStub

    Session = tuple[Rsp, FakeStub]


def test_it_begins_with_why_the_machine_stands_still(stub: Session) -> None:
    rsp, _ = stub

    stop = rsp.begin()

    assert (stop.signal, stop.thread, stop.is_trap) == (5, "p01.01", True)


def test_registers_are_read_and_one_is_written(stub: Session) -> None:
    rsp, fake = stub
    rsp.write_register(3, 0xFFFF_0000_1111_2222)

    assert rsp.read_registers()[24:32].hex() == "ffff000011112222"
    assert fake.registers[3] == 0xFFFF_0000_1111_2222


def test_memory_is_read_and_written_in_pieces_that_the_stub_takes(stub: Session) -> None:
    rsp, fake = stub
    content = bytes(range(256)) * (LARGEST_READ // 256 + 3)
    rsp.write_memory(0x4000, content)

    assert rsp.read_memory(0x4000, len(content)) == content
    assert sum(line.startswith("m") for line in fake.log) == 2


def test_memory_that_is_not_there_is_an_error_with_the_answer(stub: Session) -> None:
    rsp, _ = stub
    with pytest.raises(GdbFailed, match=r"m10,4(.|\n)*E14"):
        rsp.read_memory(0x10, 4)


def test_physical_memory_is_another(stub: Session) -> None:
    rsp, fake = stub
    fake.put(0x10, b"virt")
    fake.put(0x10, b"phys", physical=True)

    with rsp.physical():
        assert rsp.read_memory(0x10, 4) == b"phys"
    assert rsp.read_memory(0x10, 4) == b"virt"


def test_the_mode_is_put_back_after_an_error(stub: Session) -> None:
    rsp, fake = stub
    fake.put(0x10, b"virt")
    with pytest.raises(GdbFailed), rsp.physical():
        rsp.read_memory(0x99, 1)

    assert rsp.read_memory(0x10, 4) == b"virt"


def test_a_step_returns_when_it_is_done(stub: Session) -> None:
    rsp, fake = stub
    rsp.select("p01.01")

    assert rsp.step().is_trap
    assert "vCont;s:p01.01" in fake.log


def test_a_processor_is_chosen_once(stub: Session) -> None:
    rsp, fake = stub
    for _ in range(3):
        rsp.select("p01.02")

    assert fake.log == ["Hgp01.02"]


def test_an_interrupt_stops_what_runs(stub: Session) -> None:
    rsp, _ = stub
    rsp.resume()
    assert rsp.wait_stop(timeout=0.05) is None

    rsp.interrupt()

    stop = rsp.wait_stop(timeout=10)
    assert stop is not None and (stop.signal, stop.is_trap) == (2, False)


def test_nothing_can_be_asked_while_it_runs(stub: Session) -> None:
    rsp, _ = stub
    rsp.resume()

    with pytest.raises(GdbFailed, match="the machine runs"):
        rsp.read_registers()


def test_a_stop_is_not_waited_for_when_nothing_runs(stub: Session) -> None:
    rsp, _ = stub
    with pytest.raises(GdbFailed, match="not told to go on"):
        rsp.wait_stop(timeout=1)


def test_the_end_of_the_machine_is_told_as_that(stub: Session) -> None:
    rsp, fake = stub
    rsp.resume()
    fake.happen(lambda _: "W00")

    with pytest.raises(GdbGone, match="W00"):
        rsp.wait_stop(timeout=10)


def test_a_stub_that_hangs_up_is_gone(stub: Session) -> None:
    rsp, fake = stub
    fake.stream.shutdown(socket.SHUT_RDWR)

    with pytest.raises(GdbGone):
        rsp.ask("?")


def test_a_stub_that_says_nothing_misses_its_deadline() -> None:
    ours, theirs = socket.socketpair()
    rsp = Rsp(ours)
    with pytest.raises(WaitTimeout, match=r"no answer to g within 0\.05 s"):
        rsp.ask("g", timeout=0.05)
    theirs.close()
    rsp.close()


def test_what_the_stub_does_not_know_is_said_to_be_so(stub: Session) -> None:
    rsp, fake = stub
    fake.answers["Z2,920,8"] = ""

    with pytest.raises(GdbFailed, match="not supported"):
        rsp.add_watchpoint(0x920, 8)


def test_detaching_says_so_and_is_quiet_when_the_stub_is_gone(stub: Session) -> None:
    rsp, fake = stub
    rsp.detach()
    assert fake.log[-1] == "D"

    other = Rsp(socket.socketpair()[0])
    other.detach()


@given(st.binary(max_size=80))
def test_an_answer_of_garbage_is_one_of_our_errors(garbage: bytes) -> None:
    ours, theirs = socket.socketpair()
    rsp = Rsp(ours)
    theirs.sendall(garbage)
    theirs.close()
    try:
        with pytest.raises(HarnessError):
            rsp.read_registers()
    finally:
        rsp.close()


@given(st.sampled_from(["", "E01", "O4142", "T", "T0", "Tzz", "0", "xy", "OK"]))
def test_an_answer_that_fits_no_question_is_refused(said: str) -> None:
    ours, theirs = socket.socketpair()
    rsp = Rsp(ours)
    theirs.sendall(encode_packet(said.encode()) * 2)
    try:
        with pytest.raises(GdbFailed):
            rsp.begin()
            rsp.read_registers()
    finally:
        rsp.close()
        theirs.close()


def test_interrupts_of_other_threads_do_not_break_packets(stub: Session) -> None:
    rsp, fake = stub
    fake.put(0, bytes(0x8000))
    over = threading.Event()

    def interrupt() -> None:
        while not over.is_set():
            rsp.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        for _ in range(20):
            rsp.write_memory(0, b"\xaa" * 0x2000)
    finally:
        over.set()
        thread.join()
    assert rsp.read_memory(0, 4) == b"\xaa" * 4


def test_the_log_keeps_the_first_exchanges_and_the_last(tmp_path: Path) -> None:
    path = tmp_path / "gdb.log"
    log = RspLog(path)
    total = FIRST + LAST + 50
    for number in range(total):
        log.note(">", f"m{number:x}")
    log.note("<", "ab" * 5000)
    log.close()
    log.close()

    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    assert len(lines) == FIRST + LAST + 1
    assert lines[0].endswith("> m0") and f"m{total - 1:x}" in lines[-2]
    assert "(51 lines left out)" in lines[FIRST]
    assert len(lines[-1]) < 500


def test_no_log_is_kept_without_a_path() -> None:
    log = RspLog(None)
    log.note(">", "g")
    log.close()


def test_questions_that_are_asked_at_once_are_answered_in_order(stub: Session) -> None:
    rsp, fake = stub
    fake.put(0x10, b"seen")

    assert rsp.ask_all(["m10,4", "m99,1", "?"]) == ["7365656e", "E14", "T05thread:p01.01;"]


def test_what_must_be_done_before_the_machine_goes_on_is_done(stub: Session) -> None:
    rsp, fake = stub
    rsp.resume(after=[write_packet(0x10, b"new"), register_packet(1, 0x77)])
    rsp.interrupt()

    stop = rsp.wait_stop(timeout=10)
    assert stop is not None and stop.signal == 2
    assert (fake.get(0x10, 3), fake.registers[1]) == (b"new", 0x77)


def test_what_could_not_be_done_before_it_went_on_is_told(stub: Session) -> None:
    rsp, fake = stub
    fake.answers["P1=0000000000000077"] = "E22"
    rsp.resume(after=[write_packet(0x10, b"new"), register_packet(1, 0x77)])

    with pytest.raises(GdbFailed, match=r"P1=(.|\n)*E22"):
        rsp.wait_stop(timeout=10)


def test_one_refusal_of_many_is_told(stub: Session) -> None:
    rsp, fake = stub
    fake.answers["z0,10,2"] = "E01"
    rsp.do_all([])

    with pytest.raises(GdbFailed, match="z0,10,2"):
        rsp.do_all(["Z0,10,2", "z0,10,2"])

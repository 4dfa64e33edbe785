"""Adapters alone: what PQAP, NQAP and DQAP answer."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ap.adapters import Adapters
from harness.ap.fault import Fault
from harness.ap.instruction import Answer, Instruction, ResponseCode
from harness.model.ap.hardware import ApHardware, Card, Mode
from harness.model.ap.id import Apqn
from harness.model.ap.mask import ApMask

HARDWARE = ApHardware(
    cards={4: Card(13), 5: Card(13, Mode.CCA), 6: Card(12, Mode.EP11)},
    domains=ApMask.of([4, 0xAB]),
    control_domains=ApMask.of([4, 0xAB, 0x10]),
)
QUEUE = Apqn(5, 0xAB)
TAPQ, RAPQ, ZAPQ, AQIC, QCI = (number << 24 for number in range(5))
ENABLE = 1 << 47


@pytest.fixture
def adapters() -> Adapters:
    return Adapters(HARDWARE)


def tapq(adapters: Adapters, apqn: Apqn = QUEUE) -> Answer:
    return adapters.pqap(TAPQ | apqn.value, 0, 0)


def test_tapq_of_a_queue_describes_it(adapters: Adapters) -> None:
    answer = tapq(adapters)

    assert (answer.cc, answer.response_code) == (0, ResponseCode.NORMAL)
    assert answer.status == 0x8000_0000, "empty, nothing else"
    # Functions S, M, C, mode CCA and N; type 13; highest domain; depth 8 less one.
    assert answer.gr2 == 0xF200_0000_0DFF_0007


@pytest.mark.parametrize(
    ("adapter", "functions"),
    [(4, 0xEA000000), (5, 0xF2000000), (6, 0xE6000000)],
)
def test_the_mode_of_a_card_is_one_bit_of_its_functions(
    adapters: Adapters, adapter: int, functions: int
) -> None:
    answer = tapq(adapters, Apqn(adapter, 4))

    assert answer.gr2 is not None and answer.gr2 >> 32 == functions


@pytest.mark.parametrize("apqn", [Apqn(7, 4), Apqn(5, 5)])
def test_a_queue_that_is_not_there_is_not_available_and_describes_nothing(
    adapters: Adapters, apqn: Apqn
) -> None:
    answer = tapq(adapters, apqn)

    assert (answer.cc, answer.response_code, answer.gr2) == (3, ResponseCode.Q_NOT_AVAIL, 0)


def test_qci_has_the_masks_and_the_highest_ids(adapters: Adapters) -> None:
    memory = adapters.pqap(QCI, 0, 0x2000).memory

    assert len(memory) == 128
    assert memory[:6] == bytes([0xC0, 0, 0, 0, 255, 255])
    masks = [memory[at : at + 32].hex() for at in (16, 48, 80)]
    wanted = (ApMask.of([4, 5, 6]), HARDWARE.domains, HARDWARE.control_domains)
    assert masks == [str(mask)[2:] for mask in wanted]


def test_a_card_comes_and_goes_at_run_time(adapters: Adapters) -> None:
    adapters.plug(9, Card(14))
    assert tapq(adapters, Apqn(9, 4)).response_code == ResponseCode.NORMAL

    adapters.unplug(9)
    assert tapq(adapters, Apqn(9, 4)).response_code == ResponseCode.Q_NOT_AVAIL


@pytest.mark.parametrize(
    ("change", "code"),
    [({"configured": False}, ResponseCode.DECONFIGURED), ({"checkstopped": True}, 4)],
)
def test_the_state_of_a_card_is_the_answer_of_its_queues_and_they_are_described(
    adapters: Adapters, change: dict[str, bool], code: int
) -> None:
    adapters.change_card(5, **change)  # type: ignore[arg-type]

    answer = tapq(adapters)
    assert (answer.cc, answer.response_code) == (3, code)
    assert answer.gr2, "Linux takes 0 for a queue that does not exist"
    assert adapters.pqap(ZAPQ | QUEUE.value, 0, 0).response_code == code


def test_domains_come_and_go_for_every_card(adapters: Adapters) -> None:
    adapters.set_domains([4, 0x20])
    adapters.set_control_domains([0x20])

    assert tapq(adapters, Apqn(6, 0x20)).response_code == ResponseCode.NORMAL
    assert tapq(adapters).response_code == ResponseCode.Q_NOT_AVAIL
    assert adapters.hardware.control_domains == ApMask.of([0x20])


def test_a_reset_empties_the_queue_and_ends_its_interrupts(adapters: Adapters) -> None:
    adapters.nqap(QUEUE.value, 1, b"request")
    adapters.pqap(AQIC | QUEUE.value, ENABLE, 0)

    assert adapters.pqap(ZAPQ | QUEUE.value, 0, 0).status == 0x8000_0000
    state = adapters.queue(QUEUE)
    assert (list(state.replies), state.irq_enabled, state.resets) == ([], False, 1)


def test_a_reset_that_goes_wrong_resets_nothing(adapters: Adapters) -> None:
    adapters.nqap(QUEUE.value, 1, b"request")
    adapters.set_reset(QUEUE, 0x42)

    assert adapters.pqap(ZAPQ | QUEUE.value, 0, 0).response_code == 0x42
    assert len(adapters.queue(QUEUE).replies) == 1
    adapters.set_reset(QUEUE, None)
    assert adapters.pqap(ZAPQ | QUEUE.value, 0, 0).response_code == 0


def test_a_card_that_comes_back_has_empty_queues(adapters: Adapters) -> None:
    adapters.nqap(QUEUE.value, 1, b"request")
    adapters.unplug(5)
    adapters.plug(5)

    assert not adapters.queue(QUEUE).replies


def test_interrupts_are_enabled_once(adapters: Adapters) -> None:
    codes = [
        adapters.pqap(AQIC | QUEUE.value, gr1, 0).response_code for gr1 in (ENABLE, ENABLE, 0, 0)
    ]

    assert codes == [0, ResponseCode.OTHERWISE_CHANGED] * 2


def test_a_function_that_is_not_modelled_is_refused_and_logged(adapters: Adapters) -> None:
    answer = adapters.pqap(0x55 << 24 | QUEUE.value, 0, 0)

    assert (answer.cc, answer.response_code) == (3, ResponseCode.REQ_FAC_NOT_INST)
    assert [one.name for one in adapters.since()] == ["PQAP fc 0x55"]


def test_a_request_is_answered_with_its_identifier_and_a_short_error_reply(
    adapters: Adapters,
) -> None:
    sent = adapters.nqap(QUEUE.value, 0x1234_5678_9ABC, b"a request of some length")
    assert (sent.cc, sent.status) == (0, 0x4000_0000)

    got = adapters.dqap(QUEUE.value, 4096)
    assert (got.cc, got.psmid, got.gr2) == (0, 0x1234_5678_9ABC, 0)
    assert got.memory[1] == 0x88 and got.memory[4] == 0x22, "type 88, message malformed"
    assert got.status == 0x8000_0000, "empty again"


def test_an_empty_queue_has_no_reply(adapters: Adapters) -> None:
    answer = adapters.dqap(QUEUE.value, 4096)

    assert (answer.cc, answer.response_code) == (3, ResponseCode.NO_PENDING_REPLY)


def test_a_queue_takes_eight_requests(adapters: Adapters) -> None:
    codes = [adapters.nqap(QUEUE.value, n, b"x").response_code for n in range(9)]

    assert codes == [0] * 8 + [ResponseCode.Q_FULL]
    assert tapq(adapters).status == 0x6000_0000, "replies waiting, full"


def test_every_instruction_is_logged_in_order(adapters: Adapters) -> None:
    tapq(adapters)
    mark = adapters.mark
    adapters.pqap(QCI, 0, 0x2000)
    adapters.pqap(ZAPQ | QUEUE.value, 0, 0)

    assert [(one.name, one.apqn) for one in adapters.since(mark)] == [
        ("QCI", None),
        ("ZAPQ", QUEUE),
    ]
    assert [one.number for one in adapters.since(name="TAPQ", apqn=QUEUE)] == [0]
    assert adapters.counts == {"TAPQ": 1, "QCI": 1, "ZAPQ": 1}


def test_who_listens_hears_every_instruction() -> None:
    heard: list[Instruction] = []
    adapters = Adapters(HARDWARE, note=heard.append)
    tapq(adapters)

    assert tuple(heard) == adapters.since()
    assert str(heard[0]).endswith("TAPQ 05.00ab rc 0x00")


def test_an_injected_code_is_answered_as_often_as_was_said(adapters: Adapters) -> None:
    adapters.inject(Fault(ResponseCode.BUSY, on="ZAPQ", apqn=QUEUE, times=2))

    assert [adapters.pqap(ZAPQ | QUEUE.value, 0, 0).response_code for _ in range(3)] == [5, 5, 0]
    assert tapq(adapters).response_code == 0, "it is about ZAPQ"


def test_an_absent_queue_stays_absent_whatever_is_injected(adapters: Adapters) -> None:
    adapters.inject(Fault(ResponseCode.BUSY, times=5))

    assert tapq(adapters, Apqn(7, 4)).response_code == ResponseCode.Q_NOT_AVAIL


def test_threads_may_change_cards_while_instructions_are_executed(adapters: Adapters) -> None:
    codes: set[int] = set()

    def plug_and_unplug() -> None:
        for _ in range(300):
            adapters.unplug(5)
            adapters.plug(5, Card(13, Mode.CCA))

    thread = threading.Thread(target=plug_and_unplug)
    thread.start()
    while thread.is_alive():
        codes.add(tapq(adapters).response_code)
    thread.join()

    assert codes <= {0, 1}
    assert tapq(adapters).response_code == 0


queues = st.builds(Apqn, st.integers(3, 7), st.sampled_from([4, 5, 0xAB]))
words = st.one_of(
    st.tuples(st.sampled_from([TAPQ, RAPQ, ZAPQ, AQIC, 9 << 24]), queues),
    st.tuples(st.sampled_from(["nqap", "dqap", "plug", "unplug"]), queues),
)


@given(st.lists(words, max_size=40))
def test_whatever_is_asked_the_condition_code_tells_whether_it_was_normal(
    asked: list[tuple[int | str, Apqn]],
) -> None:
    adapters = Adapters(HARDWARE)
    for what, apqn in asked:
        there = apqn.adapter in adapters.hardware.cards and apqn.domain in HARDWARE.domains
        if what == "plug":
            adapters.plug(apqn.adapter)
        elif what == "unplug":
            adapters.unplug(apqn.adapter)
        else:
            if what == "nqap":
                answer = adapters.nqap(apqn.value, 1, b"x")
            elif what == "dqap":
                answer = adapters.dqap(apqn.value, 8)
            else:
                assert isinstance(what, int)
                answer = adapters.pqap(what | apqn.value, 0, 0)
            normal = answer.response_code == 0
            assert answer.cc == (0 if normal else 3)
            assert answer.status is not None and answer.status < 1 << 32
            assert there or not normal

"""Adapters read as Linux reads them: every field of arch/s390/include/asm/ap.h, at its place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ap.adapters import QUEUE_DEPTH, Adapters
from harness.ap.agreement_plan import sample
from harness.ap.instruction import Answer, ResponseCode
from harness.model.ap.hardware import ApHardware, Card, Mode
from harness.model.ap.id import IDS, Apqn
from harness.model.ap.kernel import Traits
from harness.model.ap.mask import ApMask
from harness.model.ap.operation import booted

TAPQ, RAPQ, ZAPQ, AQIC, QCI = (number << 24 for number in range(5))
T_BIT, F_BIT = 1 << 23, 1 << 22
IR_BIT = 1 << 47


@dataclass(frozen=True)
class Status:
    """``struct ap_queue_status``, bit fields from the left."""

    queue_empty: bool
    replies_waiting: bool
    queue_full: bool
    async_pending: bool
    irq_enabled: bool
    response_code: int
    rest: int

    @classmethod
    def of(cls, answer: Answer) -> Status:
        assert answer.status is not None
        bits = f"{answer.status:032b}"
        assert len(bits) == 32
        empty, waiting, full, pending, irq = (bits[at] == "1" for at in (0, 1, 2, 6, 7))
        code, rest = int(bits[8:16], 2), int(bits[3:6] + bits[16:], 2)
        return cls(empty, waiting, full, pending, irq, code, rest)


def hwinfo(answer: Answer) -> dict[str, int]:
    """Take ``struct ap_tapq_hwinfo`` apart: name to value, bit fields from the left."""
    assert answer.gr2 is not None
    bits, found = f"{answer.gr2:064b}", {}
    for name, width in (
        ("apsc", 1), ("mex4k", 1), ("crt4k", 1), ("cca", 1), ("accel", 1), ("ep11", 1),
        ("apxa", 1), ("slcf", 1), ("class", 8), ("bs", 2), ("_14", 14), ("at", 8), ("nd", 8),
        ("_4", 4), ("ml", 4), ("_4b", 4), ("qd", 4),
    ):  # fmt: skip
        found[name], bits = int(bits[:width], 2), bits[width:]
    assert not bits
    return found


ids = st.integers(0, IDS - 1)
cards = st.builds(Card, st.integers(3, 14), st.sampled_from(Mode), st.booleans(), st.booleans())


@st.composite
def machines(draw: st.DrawFn) -> ApHardware:
    highest_adapter, highest_domain = draw(ids), draw(ids)
    adapters = draw(st.sets(st.integers(0, highest_adapter), max_size=4))
    domains = draw(st.sets(st.integers(0, highest_domain), max_size=4))
    return ApHardware(
        cards={adapter: draw(cards) for adapter in adapters},
        domains=ApMask.of(domains),
        control_domains=ApMask.of(draw(st.sets(ids, max_size=4))),
        max_adapter=highest_adapter,
        max_domain=highest_domain,
    )


@given(machines())
def test_qci_is_struct_ap_config_info(machine: ApHardware) -> None:
    memory = Adapters(machine).pqap(QCI, 0, 0).memory

    assert len(memory) == 4 + 2 + 10 + 3 * 32 + 16
    flags = f"{int.from_bytes(memory[:4], 'big'):032b}"
    assert (flags[0], flags[1]) == ("1", "1"), "APSC and APXA"
    assert "1" not in flags[2:], "no QACT, RC8A, APSB: the kernel would use them"
    assert (memory[4], memory[5]) == (machine.max_adapter, machine.max_domain)
    assert not any(memory[6:16])
    masks = [ApMask(int.from_bytes(memory[at : at + 32], "big")) for at in (16, 48, 80)]
    assert masks == [ApMask.of(machine.cards), machine.domains, machine.control_domains]
    assert not any(memory[112:])


@given(machines(), st.sampled_from([0, T_BIT]))
def test_tapq_describes_every_queue_that_is_there(machine: ApHardware, tbit: int) -> None:
    adapters = Adapters(machine)
    for adapter, card in machine.cards.items():
        for domain in machine.domains:
            answer = adapters.pqap(TAPQ | tbit | Apqn(adapter, domain).value, 0, 0)
            info = hwinfo(answer)
            modes = {Mode.CCA: "cca", Mode.ACCELERATOR: "accel", Mode.EP11: "ep11"}
            assert [name for name in modes.values() if info[name]] == [modes[card.mode]]
            assert (info["at"], info["qd"], info["apxa"]) == (card.hwtype, QUEUE_DEPTH, 1)
            # nd is left out: asm/ap.h calls it a number of domains, kernels that still read it
            # took it for the highest (ap_query_queue), today's do not look.
            assert not any(info[name] for name in ("slcf", "class", "bs", "_14", "_4", "_4b"))
            status = Status.of(answer)
            assert status.response_code == card.response
            assert (status.queue_empty, status.rest, status.async_pending) == (True, 0, False)


@given(machines(), ids, ids)
def test_what_is_not_there_is_not_available(
    machine: ApHardware, adapter: int, domain: int
) -> None:
    adapters, queue = Adapters(machine), Apqn(adapter, domain)
    there = adapter in machine.cards and domain in machine.domains

    for function in (TAPQ, RAPQ, ZAPQ, AQIC):
        answer = adapters.pqap(function | queue.value, 0, 0)
        assert (answer.response_code == ResponseCode.Q_NOT_AVAIL) == (not there)
    for answer in (adapters.nqap(queue.value, 1, b"x"), adapters.dqap(queue.value, 9)):
        assert (answer.response_code == ResponseCode.Q_NOT_AVAIL) == (not there)


@given(machines(), st.sampled_from([0, F_BIT]), st.sampled_from([None, 0, 0x42]))
def test_a_reset_ends_as_the_model_of_the_kernel_expects(
    machine: ApHardware, fbit: int, code: int | None
) -> None:
    for adapter in machine.cards:
        for domain in machine.domains:
            queue = Apqn(adapter, domain)
            odd = machine.with_reset(queue, code)
            answer = Adapters(odd).pqap(ZAPQ | fbit | queue.value, 0, 0)
            assert answer.response_code == odd.zapq(queue)


class QueueModel:
    """What a queue must do: eight requests, oldest reply first, one bit for interrupts."""

    def __init__(self) -> None:
        self.psmids: list[int] = []
        self.irq = False

    def flags(self) -> tuple[bool, bool, bool, bool]:
        waiting = bool(self.psmids)
        return not waiting, waiting, len(self.psmids) > QUEUE_DEPTH, self.irq


@given(st.lists(st.sampled_from(["nqap", "dqap", "tapq", "rapq", "zapq", "on", "off"])))
def test_a_queue_is_a_queue(done: list[str]) -> None:
    queue, model = Apqn(5, 4), QueueModel()
    adapters = Adapters(ApHardware(cards={5: Card()}, domains=ApMask.of([4])))
    for number, what in enumerate(done):
        if what == "nqap":
            answer = adapters.nqap(0x4000_0000 | queue.value, number, b"request")
            full = len(model.psmids) > QUEUE_DEPTH
            assert answer.response_code == (ResponseCode.Q_FULL if full else 0)
            model.psmids += [] if full else [number]
        elif what == "dqap":
            answer = adapters.dqap(0x8000_0000 | queue.value, 4096)
            expected = 0 if model.psmids else ResponseCode.NO_PENDING_REPLY
            assert answer.response_code == expected
            assert answer.psmid == (model.psmids.pop(0) if model.psmids else 0)
            assert bool(answer.memory) == (expected == 0)
        elif what in ("on", "off"):
            wanted = what == "on"
            answer = adapters.pqap(AQIC | queue.value, IR_BIT * wanted, 0)
            same = ResponseCode.OTHERWISE_CHANGED if wanted == model.irq else 0
            assert answer.response_code == same
            model.irq = wanted
        else:
            answer = adapters.pqap(
                {"tapq": TAPQ, "rapq": RAPQ, "zapq": ZAPQ}[what] | queue.value, 0, 0
            )
            assert answer.response_code == 0
            if what != "tapq":
                model = QueueModel()
        status = Status.of(answer)
        assert (
            status.queue_empty, status.replies_waiting, status.queue_full, status.irq_enabled,
        ) == model.flags()  # fmt: skip
        assert answer.cc == (0 if status.response_code == 0 else 3)


@given(st.integers(0, 2**32), st.integers(0, 25))
def test_the_machine_of_a_sequence_answers_as_the_model_thinks(seed: int, steps: int) -> None:
    hardware = ApHardware(cards={4: Card(), 5: Card()}, domains=ApMask.of([4, 0x47]))
    start, adapters = booted(hardware, Traits.of_version((6, 12))), Adapters(hardware)
    for step in sample(start, Random(seed), steps):
        state = step.outcome.state
        adapters.hardware = state.hardware
        memory = adapters.pqap(QCI, 0, 0).memory
        assert memory[16:48] == state.hardware.configuration.adapters.value.to_bytes(32, "big")
        for apqn in state.queues:
            code = adapters.pqap(ZAPQ | apqn.value, 0, 0).response_code
            assert code == state.hardware.zapq(apqn)


@pytest.mark.parametrize("code", [5, 6, 7, 8, 9, 0x55, 0xFF])
def test_functions_that_are_not_modelled_say_so(code: int) -> None:
    adapters = Adapters(ApHardware(cards={5: Card()}, domains=ApMask.of([4])))

    answer = adapters.pqap(code << 24 | Apqn(5, 4).value, 0, 0)

    assert answer.response_code == ResponseCode.REQ_FAC_NOT_INST
    assert answer.gr2 is None


def test_a_card_that_is_off_says_so_whatever_its_resets_end_with() -> None:
    queue = Apqn(5, 4)
    off = replace(ApHardware(domains=ApMask.of([4])), cards={5: Card(configured=False)})

    machine = off.with_reset(queue, 0x42)

    assert machine.zapq(queue) == ResponseCode.DECONFIGURED
    assert Adapters(machine).pqap(ZAPQ | queue.value, 0, 0).response_code == machine.zapq(queue)

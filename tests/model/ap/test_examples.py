"""The examples of the documents: the kernel's three guests, IBM's walk, the deck's conflict."""

import pytest

from harness.model.ap.errno import Errno
from harness.model.ap.hardware import ApHardware, Card, Mode
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import ApKernel, Traits
from harness.model.ap.levels import eligible
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.operation import (
    Operation,
    assign,
    booted,
    create_mdev,
    remove_mdev,
    run,
    set_apmask,
    set_aqmask,
)
from harness.model.ap.sysfs import MATRIX, read

KERNELS = pytest.mark.parametrize(
    "traits", [Traits.of_version((6, 12)), Traits.of_version((7, 2))], ids=["6.12", "7.2"]
)
UUIDS = [f"{digit * 8}-1111-2222-3333-444444444444" for digit in "123"]


def fill(uuid: str, adapters: list[int], domains: list[int]) -> list[Operation]:
    """Return the writes of the documents: adapters one by one, then domains."""
    return [
        create_mdev(f"{uuid}\n"),
        *(assign(uuid, "assign_adapter", f"{adapter:#x}\n") for adapter in adapters),
        *(assign(uuid, "assign_domain", f"{domain:#x}\n") for domain in domains),
    ]


def queues(state: ApKernel, uuid: str, attribute: str = "matrix") -> str:
    text = read(state, f"{MATRIX}/{uuid}/{attribute}")
    assert isinstance(text, str)
    return " ".join(text.split())


# Linux Documentation/arch/s390/vfio-ap.rst, "Example".

KERNEL_HOST = ApHardware(
    cards={5: Card(11, Mode.CCA), 6: Card(11, Mode.ACCELERATOR)},
    domains=ApMask.of([4, 0x47, 0xAB, 0xFF]),
)
KERNEL_GUESTS = [
    ([5, 6], [4, 0xAB], "05.0004 05.00ab 06.0004 06.00ab"),
    ([5], [0x47, 0xFF], "05.0047 05.00ff"),
    ([6], [0x47, 0xFF], "06.0047 06.00ff"),
]
SECURED = [
    set_apmask("-5,-6\n"),
    set_aqmask("-4,-0x47,-0xab,-0xff\n"),
    set_apmask("0xf9ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\n"),
    set_aqmask("0xf7fffffffffffffffeffffffffffffffffffffffffeffffffffffffffffffffe\n"),
]


@KERNELS
@pytest.mark.parametrize("secure", SECURED, ids=["-apmask", "-aqmask", "apmask", "aqmask"])
def test_three_guests_of_the_kernel_document(traits: Traits, secure: Operation) -> None:
    filled = [
        step
        for uuid, (adapters, domains, _) in zip(UUIDS, KERNEL_GUESTS, strict=True)
        for step in fill(uuid, adapters, domains)
    ]

    outcome = run(booted(KERNEL_HOST, traits), secure, *filled)

    assert outcome.errno is None
    for uuid, (_, _, expected) in zip(UUIDS, KERNEL_GUESTS, strict=True):
        assert queues(outcome.state, uuid) == expected
        assert queues(outcome.state, uuid, "guest_matrix") == expected


def test_relative_and_absolute_masks_of_the_kernel_document_are_the_same() -> None:
    state = booted(KERNEL_HOST, Traits.of_version((6, 12)))

    by_changes = run(state, SECURED[0], SECURED[1]).state
    in_full = run(state, SECURED[2], SECURED[3]).state

    assert (by_changes.apmask, by_changes.aqmask) == (in_full.apmask, in_full.aqmask)


def test_cards_of_the_kernel_document_have_its_types() -> None:
    assert [card.type_name for card in KERNEL_HOST.cards.values()] == ["CEX5C", "CEX5A"]


def test_masks_of_the_kernel_document_leave_six_adapters_and_one_domain_to_the_host() -> None:
    adapters, domains = ApMask.written("0x7d" + 62 * "0"), ApMask.written("0x80" + 62 * "0")

    assert list(adapters) == [1, 2, 3, 4, 5, 7]
    assert list(domains) == [0]


# IBM, "Setting up cryptographic adapter resources for VFIO pass-through".

IBM_HOST = ApHardware(
    cards={0: Card(13, Mode.ACCELERATOR), 0xA: Card(13, Mode.EP11)},
    domains=ApMask.of([1, 2, 4, 0x1B]),
    control_domains=ApMask.of([0x1B]),
)
IBM_UUID = "4b0518fd-9237-493f-93c8-c5597f8006a3"


@pytest.mark.rule("AP-10", "AP-11")
@KERNELS
def test_the_fallback_method_of_ibm_step_by_step(traits: Traits) -> None:
    state = booted(IBM_HOST, traits, apmask="0x")

    def done(*operations: Operation) -> ApKernel:
        outcome = run(state, *operations)
        assert outcome.errno is None
        return outcome.state

    state = done(*fill(IBM_UUID, [0x00, 0x0A], []))
    assert queues(state, IBM_UUID) == "00. 0a."
    state = done(assign(IBM_UUID, "assign_domain", "0x001b\n"))
    assert queues(state, IBM_UUID) == queues(state, IBM_UUID, "guest_matrix") == "00.001b 0a.001b"
    assert queues(state, IBM_UUID, "control_domains") == ""
    state = done(assign(IBM_UUID, "assign_control_domain", "0x001b\n"))
    assert queues(state, IBM_UUID, "control_domains") == "001b"


@pytest.mark.rule("AP-27")
def test_matrices_are_a_succession_of_filters() -> None:
    lpar = ApMatrix.of([0, 2], [0, 2, 3])
    apmask = ~ApMask.of([0])

    passed = eligible(lpar, apmask, ApMask.full(), ApMatrix.of([0, 2, 7], [0, 3, 9]))

    assert passed == (Apqn(0, 0), Apqn(0, 3))


# "vfio-ap: The Perils of the Weird", life cycle challenges.

DECK_HOST = ApHardware(
    cards={1: Card(), 2: Card(), 3: Card()}, domains=ApMask.of([1, 2]), control_domains=ApMask()
)
DECK_GUESTS = [ApMatrix.of([1, 2], [1]), ApMatrix.of([2, 3], [1, 2]), ApMatrix.of([1], [2])]


@pytest.mark.rule("AP-09")
def test_guests_1_and_2_of_the_deck_conflict_on_one_queue() -> None:
    one, two, three = DECK_GUESTS

    assert list(one.shared(two)) == [Apqn(2, 1)]
    assert list(one.shared(three)) == list(two.shared(three)) == []


@pytest.mark.rule("AP-08", "AP-09")
@KERNELS
def test_the_deck_resolves_its_conflict_by_not_starting_one(traits: Traits) -> None:
    start = booted(DECK_HOST, traits, apmask="0x")
    first, second, third = (
        fill(uuid, list(guest.adapters), list(guest.domains))
        for uuid, guest in zip(UUIDS, DECK_GUESTS, strict=True)
    )

    both = run(start, *first, *second)
    assert both.errno is Errno.EADDRINUSE
    assert both.log == (
        f"Userspace may not assign queue 02.0001 to mdev: already assigned to {UUIDS[0]}",
    )
    assert run(start, *first, *third).errno is None
    assert run(start, *second, *third).errno is None
    assert run(start, *first, remove_mdev(UUIDS[0]), *second, *third).errno is None

"""Remarks on hosts and plans: each odd thing is told once, with what to do next."""

from dataclasses import replace

import pytest

from harness.model.ap.hardware import ApHardware, Card
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import ApKernel, Mdev, Traits
from harness.model.ap.lint import Remark, Weight, remarks_on, remarks_on_plan
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.operation import (
    Operation,
    PlugCard,
    ResetDevice,
    SetReset,
    assign,
    booted,
    configure,
    create_mdev,
    override,
    run,
    scan,
    set_apmask,
    unbind,
)
from harness.model.ap.plan import Free, Guest, assumed_host, make_plan

OLD, NEW = Traits.of_version((6, 12)), Traits.of_version((7, 2))
UUID, OTHER = "62177883-f1bb-47f0-914d-32a22e3a8804", "72177883-f1bb-47f0-914d-32a22e3a8804"
HARDWARE = ApHardware(
    cards={5: Card(), 6: Card()}, domains=ApMask.of([4, 7]), control_domains=ApMask.of([4, 7])
)
FULL = ApMatrix.of([5, 6], [4, 7], [4, 7])


def host(*operations: Operation, matrix: ApMatrix = FULL, traits: Traits = OLD) -> ApKernel:
    outcome = run(
        booted(HARDWARE, traits),
        set_apmask("-5,-6\n"),
        create_mdev(UUID),
        configure(UUID, matrix.config_text()),
        *operations,
    )
    assert outcome.errno is None
    return outcome.state


def told(state: ApKernel) -> list[tuple[str, str]]:
    return [(remark.where, remark.what) for remark in remarks_on(state)]


def test_a_host_where_all_is_well_needs_no_remark() -> None:
    assert remarks_on(host()) == ()


def test_a_queue_without_driver_and_the_adapter_it_takes_along() -> None:
    remarks = remarks_on(host(unbind("vfio_ap", Apqn(5, 4))))

    assert remarks == (
        Remark(
            Weight.WARNING,
            "05.0004",
            "has no driver",
            "echo 05.0004 > /sys/bus/ap/drivers/vfio_ap/bind",
        ),
        Remark(
            Weight.WARNING,
            UUID,
            "adapter 05 is not passed on: 05.0004 is not bound to vfio_ap",
            "bind its queues to vfio_ap: the kernel drops an adapter whole",
        ),
    )


def test_a_module_that_is_not_loaded() -> None:
    state = booted(HARDWARE, OLD, apmask="0x", drivers=["cex4queue"])

    assert remarks_on(state)[0].next.startswith("modprobe vfio_ap, or echo")


def test_an_adapter_that_stays_away_without_a_cause() -> None:
    state = host(unbind("vfio_ap", Apqn(5, 7)), assign(UUID, "unassign_domain", "7"))

    assert (UUID, "adapter 05 is not passed on, though nothing is in its way any more") in told(
        state
    )


def test_a_reset_that_ended_oddly() -> None:
    state = ResetDevice(UUID).apply(host(SetReset(Apqn(5, 4), 0x42))).state
    filtered = run(state, assign(UUID, "unassign_domain", "7"), assign(UUID, "assign_domain", "7"))

    assert (
        UUID,
        "adapter 05 is not passed on: 05.0004 (reset ended with 0x42)",
    ) in told(filtered.state)


def test_queues_that_nobody_has_any_more() -> None:
    state = host(matrix=ApMatrix.of([5], [4, 7], [4, 7]))

    assert told(state) == [("host", "06.0004, 06.0007 left the host, but no mdev has them")]


@pytest.mark.parametrize(
    ("matrix", "what"),
    [
        (ApMatrix.of([5], []), "has no domains, so no queue"),
        (ApMatrix.of([], [4], [4]), "has no adapters, so no queue"),
        (ApMatrix.of([5], [4]), "cannot control its domains 0x04"),
        (ApMatrix.of([5], [4], [4, 9]), "control domain 0x09: not the host's; plugged when it"),
        (ApMatrix.of([5], [4, 9], [4, 9]), "domain 0x09: not the host's; plugged when it comes"),
    ],
)
def test_a_matrix_that_gives_less_than_it_says(matrix: ApMatrix, what: str) -> None:
    assert any(
        where == UUID and text.startswith(what) for where, text in told(host(matrix=matrix))
    )


def test_adapters_that_are_off() -> None:
    state = host(PlugCard(5, Card(configured=False)), scan())

    assert told(state) == [(UUID, "05.0004, 05.0007: deconfigured or checkstopped, and passed on")]


def test_what_no_working_kernel_does_is_an_error() -> None:
    state = host()
    broken = replace(state, mdevs=(*state.mdevs, Mdev(OTHER, FULL)), apmask=ApMask.full())

    errors = [one for one in remarks_on(broken) if one.weight is Weight.ERROR]

    assert {one.what for one in errors} >= {
        "is assigned to an mdev and left to the host",
        "is with vfio_ap, but belongs to cex4queue",
        f"shares 05.0004, 05.0007, 06.0004, 06.0007 with {UUID}",
    }
    assert remarks_on(broken)[0].weight is Weight.ERROR


def test_an_override_that_waits_for_a_bind() -> None:
    state = override(Apqn(5, 4), "vfio_ap\n").apply(booted(HARDWARE, NEW)).state

    assert told(state) == [("05.0004", "is with cex4queue, but belongs to vfio_ap")]


# Plans.


def test_a_plan_says_what_the_host_loses_beside() -> None:
    start = booted(HARDWARE, NEW)
    guest = Guest.of("one", ApMatrix.of([5], [4], [4]))

    by_adapter, by_domain, by_queue = (
        remarks_on_plan(make_plan([guest], start, free)) for free in Free
    )

    assert [one.what for one in by_adapter] == ["loses 05.0007 too, which no guest gets"]
    assert [one.what for one in by_domain] == ["loses 06.0004 too, which no guest gets"]
    assert by_adapter[0].next.startswith("compare --free domains")
    assert by_queue == ()


def test_a_plan_says_who_gets_nothing() -> None:
    guests = [Guest.of("one", ApMatrix.of([5], [])), Guest.of("two", ApMatrix.of([], [4]))]

    found = remarks_on_plan(make_plan(guests, assumed_host(guests, NEW), Free.ADAPTERS))

    assert [(one.where, one.what) for one in found] == [
        ("one", "has no queue: give it a domain"),
        ("two", "has no queue: give it an adapter"),
    ]


def test_a_plan_says_what_does_not_come_at_once() -> None:
    guest = Guest.of("one", ApMatrix.of([5, 9], [4], [4]))

    found = remarks_on_plan(make_plan([guest], booted(HARDWARE, NEW), Free.DOMAINS))

    assert ("one", "adapter 0x09: not the host's; plugged when it comes") in [
        (one.where, one.what) for one in found
    ]

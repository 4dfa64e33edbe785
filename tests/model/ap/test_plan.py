"""Plans: masks, writes and conflicts for a wished split of adapters and domains."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.ap.errno import Errno
from harness.model.ap.hardware import ApHardware, Card
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import ApKernel, Traits
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.operation import Operation, booted, override, set_apmask, set_aqmask
from harness.model.ap.plan import Free, Guest, Plan, assumed_host, make_plan, union
from harness.model.ap.table import CONFLICT, FREE, HOST, table_of_host, table_of_plan

OLD, NEW = Traits.of_version((6, 12)), Traits.of_version((7, 2))
ONE = Guest.of("one", ApMatrix.of([1, 2], [1]))
TWO = Guest.of("two", ApMatrix.of([2, 3], [1, 2]))
THREE = Guest.of("three", ApMatrix.of([1], [2]))
HOST_OF_FOUR = ApHardware(
    cards={number: Card() for number in range(4)}, domains=ApMask.of([1, 2, 3])
)


def planned(*guests: Guest, free: Free = Free.ADAPTERS, host: ApKernel | None = None) -> Plan:
    return make_plan(guests, host or assumed_host(guests, NEW), free)


def commands(plan: Plan) -> list[str]:
    return [step.command for step in plan.steps]


def test_adapters_leave_apmask() -> None:
    plan = planned(ONE, THREE)

    assert commands(plan)[:2] == ["modprobe vfio_ap", "echo -1,-2 > /sys/bus/ap/apmask"]
    assert plan.conflicts == ()
    assert [mdev.shadow for mdev in plan.end.mdevs] == [THREE.matrix, ONE.matrix]


def test_domains_leave_aqmask() -> None:
    plan = planned(ONE, THREE, free=Free.DOMAINS)

    assert "echo -1,-2 > /sys/bus/ap/aqmask" in commands(plan)
    assert plan.end.apmask == ApMask.full()
    assert plan.conflicts == ()


def test_queues_are_overridden_one_by_one() -> None:
    plan = planned(THREE, free=Free.QUEUES)

    assert commands(plan)[1:4] == [
        "echo vfio_ap > /sys/bus/ap/devices/01.0002/driver_override",
        "echo 01.0002 > /sys/bus/ap/drivers/cex4queue/unbind",
        "echo 01.0002 > /sys/bus/ap/drivers/vfio_ap/bind",
    ]
    assert plan.conflicts == ()
    assert not plan.end.masks_in_use


def test_a_queue_that_is_vfio_aps_already_is_left_alone() -> None:
    first = planned(THREE, free=Free.QUEUES)

    again = planned(THREE, free=Free.QUEUES, host=first.end)

    assert again.steps == ()


@pytest.mark.parametrize(
    ("free", "freed"),
    [(Free.DOMAINS, set_apmask("-1\n")), (Free.ADAPTERS, set_aqmask("-2\n"))],
)
def test_what_the_other_mask_freed_is_not_taken_again(free: Free, freed: Operation) -> None:
    start = freed.apply(booted(HOST_OF_FOUR, NEW)).state

    plan = planned(THREE, free=free, host=start)

    assert plan.conflicts == ()
    assert (plan.end.apmask, plan.end.aqmask) == (start.apmask, start.aqmask)


def test_only_what_the_host_still_has_is_taken() -> None:
    start = set_aqmask("-1\n").apply(booted(HOST_OF_FOUR, NEW)).state

    plan = planned(ONE, THREE, host=start)

    assert "echo -1 > /sys/bus/ap/apmask" in commands(plan)
    assert plan.conflicts == ()


def test_older_kernels_have_no_overrides() -> None:
    plan = make_plan([THREE], assumed_host([THREE], OLD), Free.QUEUES)

    assert [step.errno for step in plan.conflicts] == [
        Errno.ENOENT, Errno.ENODEV, Errno.EADDRNOTAVAIL,
    ]  # fmt: skip
    assert [step.why for step in plan.conflicts] == [
        "this kernel has no driver_override",
        "no driver of the other pool may have it",
        "01.0002 would be in use by the drivers of the host",
    ]


@pytest.mark.rule("AP-09")
def test_all_conflicts_are_told_with_queue_and_owner() -> None:
    plan = planned(ONE, TWO, THREE)

    (conflict,) = plan.conflicts
    assert (conflict.guest, conflict.errno) == ("two", Errno.EADDRINUSE)
    assert conflict.command.endswith(f"{TWO.uuid}/assign_domain")
    assert "02.0001" in conflict.why
    assert f"{ONE.uuid} (one)" in conflict.why


def test_ids_above_the_highest_are_told() -> None:
    small = booted(ApHardware(cards={1: Card()}, domains=ApMask.of([2]), max_adapter=3), NEW)

    plan = planned(Guest.of("far", ApMatrix.of([4], [2])), host=small)

    assert [step.errno for step in plan.conflicts] == [Errno.ENODEV]
    assert plan.conflicts[0].why == "the highest adapter is 0x03, the highest domain 0xff"


def test_masks_wait_for_overrides_and_overrides_for_masks() -> None:
    start = booted(HOST_OF_FOUR, NEW)
    overridden = override(Apqn(0, 1), "vfio_ap\n").apply(start).state
    masked = set_apmask("-0\n").apply(start).state

    by_mask = planned(THREE, host=overridden)
    by_queue = planned(THREE, host=masked, free=Free.QUEUES)

    assert (
        by_mask.conflicts[0].why == "masks cannot be changed while a queue has a driver override"
    )
    assert by_queue.conflicts[0].why == "overrides cannot be set while a mask is not all ones"


def test_an_mdev_that_is_there_is_changed() -> None:
    before = planned(ONE, host=booted(HOST_OF_FOUR, NEW)).end

    plan = planned(Guest("one", ApMatrix.of([2], [1, 3], [3]), ONE.uuid), host=before)

    place = f"/sys/devices/vfio_ap/matrix/{ONE.uuid}"
    assert commands(plan) == [
        f"echo 0x01 > {place}/unassign_adapter",
        f"echo 0x03 > {place}/assign_domain",
        f"echo 0x03 > {place}/assign_control_domain",
    ]
    assert plan.conflicts == ()


def test_an_mdev_of_somebody_else_is_in_the_way_and_in_the_table() -> None:
    other = Guest("9" * 8 + ONE.uuid[8:], ApMatrix.of([1], [1]), "9" * 8 + ONE.uuid[8:])
    start = planned(other, host=booted(HOST_OF_FOUR, NEW)).end

    plan = planned(ONE, host=start)

    table = table_of_plan(plan)
    assert [step.errno for step in plan.conflicts] == [Errno.EADDRINUSE]
    assert table.names == ("one", other.name)
    assert (table.mark(Apqn(1, 1)), table.mark(Apqn(2, 1))) == (CONFLICT, "1")
    assert table_of_host(start).names == (other.name,)


def test_uuids_follow_from_names() -> None:
    assert Guest.of("one", ApMatrix()) == Guest.of("one", ApMatrix())
    assert Guest.of("one", ApMatrix()).uuid != TWO.uuid
    assert Guest.of("one", ApMatrix(), TWO.uuid).uuid == TWO.uuid


@st.composite
def splits(draw: st.DrawFn) -> list[Guest]:
    """Return guests on some of 4 adapters and 4 domains, which may overlap."""
    some = st.sets(st.integers(0, 3), min_size=1, max_size=3)
    return [
        Guest.of(f"g{number}", ApMatrix.of(draw(some), draw(some)))
        for number in range(draw(st.integers(1, 4)))
    ]


@given(splits(), st.sampled_from(Free))
def test_a_plan_conflicts_exactly_where_guests_share_a_queue(
    guests: list[Guest], free: Free
) -> None:
    plan = planned(*guests, free=free)

    shared = any(
        len(one.matrix.shared(other.matrix))
        for number, one in enumerate(guests)
        for other in guests[:number]
    )
    assert bool(plan.conflicts) == shared
    assert {step.errno for step in plan.conflicts} <= {Errno.EADDRINUSE}
    assert table_of_plan(plan).has(CONFLICT) == shared
    if not shared:
        for guest in guests:
            mdev = plan.end.mdev(guest.uuid)
            assert mdev is not None
            assert mdev.shadow == guest.matrix


@given(splits(), st.sampled_from(Free))
def test_carrying_a_plan_out_leads_where_it_says(guests: list[Guest], free: Free) -> None:
    plan = planned(*guests, free=free)

    state = plan.start
    for step in plan.steps:
        outcome = step.operation.apply(state)
        assert outcome.errno == step.errno
        state = outcome.state

    assert state == plan.end


@given(splits())
def test_what_any_guest_wants_is_united(guests: list[Guest]) -> None:
    wanted = union(guests)

    assert all(apqn in wanted for guest in guests for apqn in guest.matrix)
    assert set(wanted.adapters) == {one for guest in guests for one in guest.matrix.adapters}


def test_the_table_has_a_column_for_each_adapter_and_a_row_for_each_domain() -> None:
    table = table_of_plan(planned(ONE, THREE, host=booted(HOST_OF_FOUR, NEW)))

    rows = [
        "".join(table.mark(Apqn(adapter, domain)) for adapter in table.adapters)
        for domain in table.domains
    ]
    assert (table.adapters, table.domains) == ((0, 1, 2, 3), (1, 2, 3))
    assert rows == [f"{HOST}11{HOST}", f"{HOST}2{FREE}{HOST}", f"{HOST}{FREE}{FREE}{HOST}"]


def test_a_queue_that_is_the_hosts_and_a_guests_is_a_conflict() -> None:
    start = booted(HOST_OF_FOUR, OLD)

    table = table_of_plan(make_plan([THREE], start, Free.QUEUES))

    assert table.mark(Apqn(1, 2)) == CONFLICT


def test_more_guests_than_letters_share_the_last() -> None:
    guests = [Guest.of(f"g{number}", ApMatrix.of([number], [0])) for number in range(40)]

    table = table_of_plan(planned(*guests))

    assert table.mark_of("g0") == "1"
    assert table.mark_of("g9") == "a"
    assert table.mark_of("g33") == table.mark_of("g39") == "z"
    assert HOST not in {table.mark_of(guest.name) for guest in guests}

"""Writes to the AP bus and to mediated devices: what they do, and every refusal, in order."""

from dataclasses import replace

import pytest

from harness.model.ap.bus import OVERRIDE_STAYS
from harness.model.ap.errno import Errno
from harness.model.ap.hardware import ApHardware, Card
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import ApKernel, Outcome, Traits
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.operation import (
    LoadDriver,
    OpenDevice,
    Operation,
    UnloadDriver,
    UnplugCard,
    Write,
    assign,
    bind,
    booted,
    configure,
    create_mdev,
    override,
    remove_mdev,
    run,
    scan,
    set_apmask,
    set_aqmask,
    unbind,
)
from harness.model.ap.sysfs import MATRIX, TYPE, links, queue_status, read, texts, write

OLD, NEW = Traits.of_version((6, 12)), Traits.of_version((7, 2))
ONE, TWO = "62177883-f1bb-47f0-914d-32a22e3a8804", "cef03c3c-903d-4ecc-9a83-40694cb8aee4"
HARDWARE = ApHardware(
    cards={4: Card(), 5: Card(), 6: Card()},
    domains=ApMask.of([4, 0x47, 0xAB, 0xFF]),
    control_domains=ApMask.of([0x10]),
)
SMALL = replace(HARDWARE, max_adapter=0x3F, domains=ApMask.of([4, 7]), max_domain=0x0F)
QUEUE = Apqn(5, 4)


def host(
    *operations: Operation, traits: Traits = OLD, hardware: ApHardware = HARDWARE
) -> ApKernel:
    """Return a host with two mdevs and adapters 5 and 6 free, after *operations*."""
    outcome = run(
        booted(hardware, traits),
        set_apmask("-5,-6\n"),
        create_mdev(f"{ONE}\n"),
        create_mdev(f"{TWO}\n"),
        *operations,
    )
    assert outcome.errno is None, outcome
    return outcome.state


def adapter(uuid: str, number: int) -> Write:
    return assign(uuid, "assign_adapter", f"{number:#x}\n")


def domain(uuid: str, number: int) -> Write:
    return assign(uuid, "assign_domain", f"{number:#x}\n")


def refused(outcome: Outcome, before: ApKernel) -> Errno | None:
    """Return the error, having seen that nothing changed."""
    assert outcome.state == before
    return outcome.errno


# Masks.


def test_masks_decide_who_has_a_queue() -> None:
    state = host()

    assert links(state)["/sys/bus/ap/devices/04.0004/driver"] == "cex4queue"
    assert links(state)["/sys/bus/ap/devices/05.0004/driver"] == "vfio_ap"
    assert read(state, "/sys/bus/ap/bindings") == "12/12 (complete)\n"


@pytest.mark.rule("AP-04")
@pytest.mark.parametrize("write", [set_apmask("-4,-5,-6\n"), set_aqmask("0x\n")])
def test_a_queue_is_vfio_aps_if_one_of_its_bits_is_clear(write: Write) -> None:
    state = run(booted(HARDWARE, OLD), write).state

    assert set(links(state).values()) == {"vfio_ap"}


def test_the_pool_is_given_back() -> None:
    state = host(set_apmask("0x" + 64 * "f" + "\n"))

    assert set(links(state).values()) == {"cex4queue"}


@pytest.mark.rule("AP-06")
@pytest.mark.parametrize("write", [set_apmask("+5\n"), set_apmask(f"0x{64 * 'f'}\n")])
def test_a_queue_of_an_mdev_does_not_go_back_to_the_host(write: Write) -> None:
    before = host(adapter(ONE, 5), domain(ONE, 4))

    outcome = write.apply(before)

    assert refused(outcome, before) is Errno.EBUSY
    assert outcome.log == ("Can not reserve queue 05.0004 for host driver: in use by mdev",)


@pytest.mark.rule("AP-06")
def test_an_adapter_goes_back_while_the_other_mask_keeps_its_domains_free() -> None:
    state = host(set_aqmask("-4\n"), adapter(ONE, 5), domain(ONE, 4))

    assert set_apmask("+5\n").apply(state).errno is None
    assert run(state, set_apmask("+5\n"), set_aqmask("+4\n")).errno is Errno.EBUSY


@pytest.mark.rule("AP-06")
def test_newer_kernels_ask_for_any_domain() -> None:
    before = host(set_aqmask("-4\n"), adapter(ONE, 5), domain(ONE, 4), traits=NEW)

    assert refused(set_apmask("+5\n").apply(before), before) is Errno.EBUSY
    assert refused(set_aqmask("+4\n").apply(before), before) is Errno.EBUSY


def test_the_boot_takes_the_same_texts() -> None:
    # Linux Documentation/arch/s390/vfio-ap.rst: ap.apmask=0xffff ap.aqmask=0x40
    state = booted(HARDWARE, OLD, apmask="0xffff", aqmask="0x40")

    assert list(state.apmask) == list(range(16))
    assert list(state.aqmask) == [1]


def test_relative_text_at_boot_starts_from_nothing_and_nonsense_is_nothing() -> None:
    state = booted(HARDWARE, OLD, apmask="+5", aqmask="nonsense")

    assert (list(state.apmask), list(state.aqmask)) == ([5], [])


@pytest.mark.parametrize(("text", "errno"), [("5\n", None), ("120", None), (" +7 s", None),
                                             ("4", Errno.EINVAL), ("121", Errno.EINVAL),
                                             ("", Errno.EINVAL), ("x", Errno.EINVAL)])  # fmt: skip
def test_config_time_is_5_to_120(text: str, errno: Errno | None) -> None:
    assert write(host(), "/sys/bus/ap/config_time", text).errno is errno


# Files.


@pytest.mark.parametrize(
    "path",
    [f"{MATRIX}/{ONE}/matrix", f"{MATRIX}/{ONE}/guest_matrix", "/sys/bus/ap/bindings",
     f"{MATRIX}/features"],
)  # fmt: skip
def test_what_is_only_shown_cannot_be_opened_for_writing(path: str) -> None:
    assert write(host(), path, "x").errno is Errno.EACCES


def test_what_only_takes_cannot_be_read() -> None:
    assert read(host(), f"{MATRIX}/{ONE}/assign_adapter") is Errno.EACCES
    assert read(host(), f"{MATRIX}/{ONE}/no_such") is Errno.ENOENT
    assert write(host(), f"{MATRIX}/no-such/matrix", "x").errno is Errno.ENOENT
    assert write(host(), "/sys/bus/ap/drivers/no_such/bind", "x").errno is Errno.ENOENT


def test_without_vfio_ap_there_is_nothing_of_it() -> None:
    state = booted(HARDWARE, OLD, drivers=["cex4queue"])

    assert not [path for path in texts(state) if path.startswith(MATRIX)]
    assert create_mdev(ONE).apply(state).errno is Errno.ENOENT


# Mediated devices.


@pytest.mark.parametrize(
    "text", ["", "1\n", ONE[:-1], ONE + "\n\n", ONE.replace("-", "_"), ONE[:-1] + "g"]
)
def test_an_mdev_wants_a_uuid(text: str) -> None:
    before = host()

    assert refused(create_mdev(text).apply(before), before) is Errno.EINVAL


@pytest.mark.parametrize("text", [ONE, ONE.upper(), f"{ONE}\n", f"{ONE}x"])
def test_a_uuid_is_taken_once(text: str) -> None:
    fresh = booted(HARDWARE, OLD)
    made = create_mdev(text).apply(fresh).state

    assert [mdev.uuid for mdev in made.mdevs] == [ONE]
    assert read(made, f"{TYPE}/available_instances") == "65535\n"
    assert refused(create_mdev(f"{ONE}\n").apply(made), made) is Errno.EEXIST


@pytest.mark.parametrize(
    ("text", "errno"),
    [("x", Errno.EINVAL), ("", Errno.EINVAL), ("-1", Errno.EINVAL), (str(2**64), Errno.EINVAL)],
)
def test_remove_wants_a_number(text: str, errno: Errno) -> None:
    before = host()

    assert refused(remove_mdev(ONE, text).apply(before), before) is errno


def test_remove_0_does_nothing_and_1_removes() -> None:
    before = host(adapter(ONE, 5), domain(ONE, 4))

    assert remove_mdev(ONE, "0\n").apply(before) == Outcome(before)
    after = remove_mdev(ONE).apply(before).state
    assert [mdev.uuid for mdev in after.mdevs] == [TWO]
    assert queue_status(after, QUEUE) == "unassigned"
    assert remove_mdev(ONE).apply(after).errno is Errno.ENOENT


@pytest.mark.rule("AP-15")
@pytest.mark.parametrize(("traits", "left"), [(OLD, 1), (NEW, 0)])
def test_remove_waits_for_the_guest(traits: Traits, left: int) -> None:
    before = host(adapter(ONE, 5), domain(ONE, 4), OpenDevice(ONE, "vm"), traits=traits)

    outcome = remove_mdev(ONE).apply(before)

    assert outcome.blocks
    mdev = outcome.state.mdev(ONE)
    assert mdev is not None
    assert mdev.crycb is not None
    assert len(mdev.crycb) == left


@pytest.mark.parametrize("attribute", ["assign_adapter", "assign_domain", "unassign_adapter",
                                       "unassign_domain", "assign_control_domain",
                                       "unassign_control_domain"])  # fmt: skip
@pytest.mark.parametrize(
    ("text", "errno"),
    [("1b", Errno.EINVAL), ("", Errno.EINVAL), ("-1", Errno.EINVAL), ("0x", Errno.EINVAL),
     (str(2**64), Errno.ERANGE), ("256", Errno.ENODEV), ("0x40", Errno.ENODEV)],
)  # fmt: skip
@pytest.mark.rule("AP-07", "AP-16")
def test_ids_are_numbers_up_to_the_highest(attribute: str, text: str, errno: Errno) -> None:
    before = host(hardware=SMALL)

    assert refused(assign(ONE, attribute, text).apply(before), before) is errno


@pytest.mark.rule("AP-07")
def test_the_highest_ids_are_inclusive() -> None:
    state = host(hardware=SMALL)

    assert adapter(ONE, 0x3F).apply(state).errno is None
    assert domain(ONE, 0x0F).apply(state).errno is None
    assert domain(ONE, 0x10).apply(state).errno is Errno.ENODEV


@pytest.mark.rule("AP-07")
def test_a_queue_of_the_host_cannot_be_assigned() -> None:
    before = host(domain(ONE, 4))

    assert refused(adapter(ONE, 4).apply(before), before) is Errno.EADDRNOTAVAIL
    # Adapter 9 is not there; its queues would be the host's all the same.
    assert refused(adapter(ONE, 9).apply(before), before) is Errno.EADDRNOTAVAIL


def test_without_a_domain_there_is_no_queue_to_refuse() -> None:
    state = host(adapter(ONE, 4))

    assert read(state, f"{MATRIX}/{ONE}/matrix") == "04.\n"
    assert domain(ONE, 4).apply(state).errno is Errno.EADDRNOTAVAIL


@pytest.mark.rule("AP-08")
def test_two_mdevs_do_not_share_a_queue() -> None:
    before = host(adapter(ONE, 5), domain(ONE, 0xAB), adapter(TWO, 5))

    outcome = domain(TWO, 0xAB).apply(before)

    assert refused(outcome, before) is Errno.EADDRINUSE
    assert outcome.log == (
        f"Userspace may not assign queue 05.00ab to mdev: already assigned to {ONE}",
    )


def test_the_hosts_claim_is_looked_at_before_that_of_another_mdev() -> None:
    before = host(adapter(ONE, 5), domain(ONE, 4), adapter(TWO, 4), adapter(TWO, 5))

    assert refused(domain(TWO, 4).apply(before), before) is Errno.EADDRNOTAVAIL


def test_assigning_again_changes_nothing() -> None:
    before = host(adapter(ONE, 5), domain(ONE, 4))

    assert adapter(ONE, 5).apply(before) == domain(ONE, 4).apply(before) == Outcome(before)
    assert assign(ONE, "unassign_adapter", "6").apply(before) == Outcome(before)


@pytest.mark.rule("AP-13")
def test_queues_that_are_not_there_can_be_assigned() -> None:
    state = host(adapter(ONE, 5), domain(ONE, 0x99), domain(ONE, 4))

    assert read(state, f"{MATRIX}/{ONE}/matrix") == "05.0004\n05.0099\n"
    assert read(state, f"{MATRIX}/{ONE}/guest_matrix") == "05.0004\n"


def test_control_domains_may_be_shared_and_need_not_be_the_hosts() -> None:
    state = host(
        assign(ONE, "assign_control_domain", "0x10"),
        assign(TWO, "assign_control_domain", "0x10"),
        assign(ONE, "assign_control_domain", "0x55"),
    )

    assert read(state, f"{MATRIX}/{ONE}/control_domains") == "0010\n0055\n"
    mdev = state.mdev(ONE)
    assert mdev is not None
    assert list(mdev.shadow.control_domains) == [0x10]
    taken = assign(ONE, "unassign_control_domain", "0x10").apply(state).state.mdev(ONE)
    assert taken is not None
    assert not taken.shadow.control_domains


# ap_config.


def test_ap_config_replaces_all_at_once() -> None:
    state = host(adapter(ONE, 5), domain(ONE, 4))

    after = configure(ONE, ApMatrix.of([6], [0x47], [0x10]).config_text()).apply(state).state

    assert read(after, f"{MATRIX}/{ONE}/matrix") == "06.0047\n"
    assert read(after, f"{MATRIX}/{ONE}/guest_matrix") == "06.0047\n"
    assert read(after, f"{MATRIX}/{ONE}/control_domains") == "0010\n"
    assert queue_status(after, QUEUE) == "unassigned"


@pytest.mark.parametrize(
    ("text", "errno"),
    [("0x04,0x08\n", None), ("0x04,0x08", Errno.EINVAL), ("0x08,0x08,0x", Errno.EADDRNOTAVAIL),
     (ApMatrix.of([6], [0x47]).config_text(), Errno.EADDRINUSE)],
)  # fmt: skip
def test_ap_config_is_refused_as_a_whole(text: str, errno: Errno | None) -> None:
    before = host(adapter(TWO, 6), domain(TWO, 0x47))

    outcome = configure(ONE, text).apply(before)

    assert outcome.errno is errno
    assert errno is None or outcome.state == before


@pytest.mark.rule("AP-07")
def test_ap_config_looks_at_the_highest_id_last() -> None:
    state = host(adapter(TWO, 6), domain(TWO, 7), hardware=SMALL)

    assert configure(ONE, ApMatrix.of([0x40], [7]).config_text()).apply(state).errno is (
        Errno.EADDRNOTAVAIL
    )
    assert configure(ONE, ApMatrix.of([6, 0x40], [7]).config_text()).apply(state).errno is (
        Errno.EADDRNOTAVAIL
    )
    # Adapter 0x40 belongs to nobody here, so its number is what is left to complain of.
    free = set_apmask("-0x40\n").apply(state).state
    too_high = ApMatrix.of([6, 0x40], [7]).config_text()
    assert configure(ONE, too_high).apply(free).errno is Errno.EADDRINUSE
    assert configure(ONE, ApMatrix.of([5, 0x40], [7]).config_text()).apply(free).errno is (
        Errno.ENODEV
    )
    assert configure(ONE, ApMatrix.of([5], [7], [0x10]).config_text()).apply(free).errno is (
        Errno.ENODEV
    )


# Binding by hand.


@pytest.mark.parametrize(
    ("operation", "errno"),
    [(bind("cex4queue", QUEUE), Errno.EBUSY), (bind("vfio_ap", QUEUE), Errno.EBUSY),
     (bind("vfio_ap", Apqn(9, 4)), Errno.ENODEV), (unbind("cex4queue", QUEUE), Errno.ENODEV),
     (unbind("vfio_ap", Apqn(9, 4)), Errno.ENODEV)],
)  # fmt: skip
def test_a_queue_is_bound_once_and_by_name(operation: Write, errno: Errno) -> None:
    before = host()

    assert refused(operation.apply(before), before) is errno
    assert write(before, operation.path, "nonsense\n").errno is Errno.ENODEV


def test_a_driver_of_the_other_pool_does_not_take_a_queue() -> None:
    free = unbind("vfio_ap", QUEUE).apply(host()).state

    assert links(free)["/sys/bus/ap/devices/05.0004/driver"] is None
    assert read(free, "/sys/bus/ap/devices/05.0004/status") is Errno.ENOENT
    assert read(free, "/sys/bus/ap/bindings") == "11/12\n"
    assert bind("cex4queue", QUEUE).apply(free).errno is Errno.ENODEV
    assert bind("vfio_ap", QUEUE).apply(free).state == host()


def test_an_unbound_queue_of_the_host_is_bound_when_masks_change() -> None:
    free = run(host(), unbind("cex4queue", Apqn(4, 4)), unbind("vfio_ap", QUEUE)).state

    changed = links(set_apmask("-9\n").apply(free).state)

    assert changed["/sys/bus/ap/devices/04.0004/driver"] == "cex4queue"
    assert changed["/sys/bus/ap/devices/05.0004/driver"] is None


# Drivers.


def test_vfio_ap_takes_what_waits_for_it() -> None:
    alone = booted(HARDWARE, OLD, apmask="0xf9", drivers=["cex4queue"])

    assert list(links(alone).values()).count(None) == 8
    assert None not in links(LoadDriver("vfio_ap").apply(alone).state).values()
    assert LoadDriver("cex4queue").apply(alone) == Outcome(alone)


def test_unloading_vfio_ap_takes_its_mdevs_but_not_a_guests() -> None:
    used = host(adapter(ONE, 5), domain(ONE, 4), OpenDevice(ONE, "vm"))
    idle = host(adapter(ONE, 5), domain(ONE, 4))

    assert refused(UnloadDriver("vfio_ap").apply(used), used) is Errno.EAGAIN
    after = UnloadDriver("vfio_ap").apply(idle).state
    assert (after.mdevs, list(links(after).values()).count(None)) == ((), 8)


# Overrides.


def test_older_kernels_have_no_override() -> None:
    assert override(QUEUE, "vfio_ap\n").apply(booted(HARDWARE, OLD)).errno is Errno.ENOENT


def test_an_override_counts_when_the_queue_is_bound_anew() -> None:
    start = booted(HARDWARE, NEW)
    set_only = override(QUEUE, "vfio_ap\n").apply(start).state
    assert links(set_only)["/sys/bus/ap/devices/05.0004/driver"] == "cex4queue"

    moved = run(set_only, unbind("cex4queue", QUEUE), bind("vfio_ap", QUEUE)).state

    assert links(moved)["/sys/bus/ap/devices/05.0004/driver"] == "vfio_ap"
    assert read(moved, "/sys/bus/ap/devices/05.0004/driver_override") == "vfio_ap\n"
    made = run(moved, create_mdev(ONE), adapter(ONE, 5), domain(ONE, 4))
    assert made.errno is None
    # Queues without an override are the host's, whether they are there or not.
    assert domain(ONE, 0x47).apply(made.state).errno is Errno.EADDRNOTAVAIL
    assert domain(ONE, 0x99).apply(made.state).errno is Errno.EADDRNOTAVAIL


def test_an_override_of_a_queue_that_is_not_bound_is_not_seen() -> None:
    state = run(
        booted(HARDWARE, NEW),
        override(QUEUE, "vfio_ap\n"),
        unbind("cex4queue", QUEUE),
        create_mdev(ONE),
        adapter(ONE, 5),
    ).state

    assert domain(ONE, 4).apply(state).errno is Errno.EADDRNOTAVAIL


def test_masks_and_overrides_exclude_each_other() -> None:
    masked, plain = host(traits=NEW), booted(HARDWARE, NEW)

    assert refused(override(QUEUE, "vfio_ap\n").apply(masked), masked) is Errno.EINVAL
    overridden = override(QUEUE, "vfio_ap\n").apply(plain).state
    assert set_apmask("-5\n").apply(overridden).errno is Errno.EINVAL
    assert set_aqmask("-5\n").apply(overridden).errno is Errno.EINVAL
    cleared = override(QUEUE, "\n").apply(overridden).state
    assert set_apmask("-5\n").apply(cleared).errno is None


def test_an_override_that_goes_with_its_card_bars_the_masks_for_ever() -> None:
    gone = run(booted(HARDWARE, NEW), override(QUEUE, "vfio_ap\n"), UnplugCard(5), scan())

    assert gone.hazards == (f"{OVERRIDE_STAYS}: {QUEUE}",)
    assert not any(queue.override for queue in gone.state.queues.values())
    assert set_apmask("-6\n").apply(gone.state).errno is Errno.EINVAL

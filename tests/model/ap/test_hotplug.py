"""What of a matrix reaches a guest, when queues, adapters and domains come and go."""

import pytest

from harness.model.ap.errno import Errno
from harness.model.ap.hardware import ApHardware, Card, Mode, Response
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import ApKernel, Mdev, Traits
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.operation import (
    CloseDevice,
    LoadDriver,
    OpenDevice,
    Operation,
    PlugCard,
    ResetDevice,
    SetControlDomains,
    SetDomains,
    SetReset,
    UnplugCard,
    Write,
    assign,
    bind,
    booted,
    configure,
    create_mdev,
    remove_mdev,
    run,
    scan,
    set_apmask,
    unbind,
)
from harness.model.ap.sysfs import MATRIX, queue_status, read
from harness.model.ap.vfio import LOCK_AT_NULL, USE_AFTER_FREE

OLD, NEW = Traits.of_version((6, 12)), Traits.of_version((7, 2))
KERNELS = pytest.mark.parametrize("traits", [OLD, NEW], ids=["6.12", "7.2"])
ONE, TWO = "62177883-f1bb-47f0-914d-32a22e3a8804", "cef03c3c-903d-4ecc-9a83-40694cb8aee4"
HARDWARE = ApHardware(
    cards={4: Card(), 5: Card(), 6: Card()},
    domains=ApMask.of([4, 0x47, 0xAB, 0xFF]),
    control_domains=ApMask.of([0x10]),
)
QUEUE, BESIDE = Apqn(5, 4), Apqn(5, 0x47)
UNKNOWN_CODE = 0x42


def guest(*operations: Operation, traits: Traits = OLD) -> ApKernel:
    """Return a host with guest ``vm`` on adapters 5, 6 and domains 4, 0x47."""
    outcome = run(
        booted(HARDWARE, traits),
        set_apmask("-5,-6\n"),
        create_mdev(ONE),
        configure(ONE, ApMatrix.of([5, 6], [4, 0x47], [0x10]).config_text()),
        OpenDevice(ONE, "vm"),
        *operations,
    )
    assert outcome.errno is None, outcome
    return outcome.state


def mdev(state: ApKernel) -> Mdev:
    found = state.mdev(ONE)
    assert found is not None
    return found


def shown(state: ApKernel) -> list[str]:
    """Return the queues of guest_matrix."""
    text = read(state, f"{MATRIX}/{ONE}/guest_matrix")
    assert isinstance(text, str)
    return text.split()


def change(attribute: str, number: int) -> Write:
    return assign(ONE, attribute, f"{number}\n")


ALL = ["05.0004", "05.0047", "06.0004", "06.0047"]


@pytest.mark.rule("AP-12")
def test_an_adapter_goes_whole_with_one_queue_that_is_not_bound() -> None:
    without = guest(unbind("vfio_ap", QUEUE))

    assert shown(guest()) == ALL
    assert shown(without) == ALL[2:]
    assert queue_status(without, BESIDE) == "assigned"
    assert shown(bind("vfio_ap", QUEUE).apply(without).state) == ALL


@pytest.mark.rule("AP-12")
def test_with_no_adapter_left_the_domains_are_shown_bare() -> None:
    state = guest(unbind("vfio_ap", QUEUE), unbind("vfio_ap", Apqn(6, 4)))

    assert shown(state) == [".0004", ".0047"]


@pytest.mark.rule("AP-14")
@KERNELS
def test_a_guest_that_runs_gets_and_loses_what_is_assigned(traits: Traits) -> None:
    start = guest(traits=traits)

    smaller = run(start, change("unassign_adapter", 6), change("unassign_domain", 4)).state
    larger = run(smaller, change("assign_domain", 0xAB), change("assign_adapter", 6)).state

    assert shown(smaller) == ["05.0047"]
    assert shown(larger) == ["05.0047", "05.00ab", "06.0047", "06.00ab"]
    for state in (start, smaller, larger):
        assert mdev(state).crycb == mdev(state).shadow


def test_guest_matrix_is_kept_when_no_guest_is_there() -> None:
    state = guest(CloseDevice(ONE), change("unassign_adapter", 6))

    assert shown(state) == ALL[:2]
    assert mdev(state).crycb is None
    assert queue_status(state, QUEUE) == "assigned"


def test_queues_in_a_guest_are_in_use() -> None:
    state = guest()

    assert queue_status(state, QUEUE) == "in use"
    assert queue_status(state, Apqn(5, 0xAB)) == "unassigned"


def test_what_made_an_adapter_go_may_leave_and_the_adapter_stays_away() -> None:
    """Unassigning does not filter anew; the next assignment does."""
    state = guest(unbind("vfio_ap", BESIDE), change("unassign_domain", 0x47))

    assert shown(state) == ["06.0004"]
    assert shown(change("assign_domain", 0xAB).apply(state).state) == [
        "05.0004", "05.00ab", "06.0004", "06.00ab",
    ]  # fmt: skip


# The host's configuration.


@pytest.mark.rule("AP-13")
@KERNELS
def test_what_is_over_provisioned_is_plugged_when_it_comes(traits: Traits) -> None:
    state = guest(set_apmask("-9\n"), change("assign_adapter", 9), traits=traits)
    assert shown(state) == ALL

    plugged = run(state, PlugCard(9, Card()), scan()).state

    assert shown(plugged) == [*ALL, "09.0004", "09.0047"]
    assert mdev(plugged).crycb == mdev(plugged).shadow
    assert shown(run(plugged, UnplugCard(9), scan()).state) == ALL


@KERNELS
def test_a_domain_that_leaves_the_host_takes_no_adapter(traits: Traits) -> None:
    state = guest(SetDomains(ApMask.of([4, 0xAB, 0xFF])), scan(), traits=traits)

    assert shown(state) == ["05.0004", "06.0004"]
    back = run(state, SetDomains(HARDWARE.domains), scan()).state
    assert shown(back) == ALL
    assert mdev(back).crycb == mdev(back).shadow


@pytest.mark.parametrize(("traits", "kept"), [(OLD, [0x10]), (NEW, [])], ids=["6.12", "7.2"])
def test_a_control_domain_that_leaves_the_host(traits: Traits, kept: list[int]) -> None:
    state = guest(SetControlDomains(ApMask()), scan(), traits=traits)

    assert list(mdev(state).shadow.control_domains) == kept
    back = run(state, SetControlDomains(ApMask.of([0x10])), scan()).state
    assert list(mdev(back).shadow.control_domains) == [0x10]


@pytest.mark.parametrize(("traits", "told"), [(OLD, False), (NEW, True)], ids=["6.12", "7.2"])
def test_the_last_adapter_leaves_the_host(traits: Traits, told: bool) -> None:
    """What 6.12 takes from a guest decides whether the guest hears of it: nothing is left."""
    state = guest(change("unassign_adapter", 6), UnplugCard(5), scan(), traits=traits)

    assert not mdev(state).shadow.adapters
    crycb = mdev(state).crycb
    assert crycb is not None
    assert (5 not in crycb.adapters) is told


def test_a_change_shows_with_the_next_scan() -> None:
    assert shown(guest(UnplugCard(5))) == ALL


@KERNELS
def test_a_card_of_another_kind_makes_new_devices(traits: Traits) -> None:
    state = guest(PlugCard(5, Card(mode=Mode.EP11)), scan(), traits=traits)

    assert shown(state) == ALL
    assert state.cards[5].mode is Mode.EP11
    assert read(state, "/sys/bus/ap/devices/card05/hwtype") == "13\n"


@pytest.mark.rule("AP-24")
def test_cards_older_than_cex4_are_no_devices() -> None:
    state = guest(
        set_apmask("-9\n"),
        change("assign_adapter", 9),
        PlugCard(9, Card(hwtype=9)),
        SetDomains(HARDWARE.domains.with_bit(1)),
        scan(),
    )

    assert Apqn(9, 4) not in state.queues
    assert shown(state) == ALL
    assert Apqn(9, 4) in run(state, PlugCard(9, Card(hwtype=10)), scan()).state.queues


@pytest.mark.parametrize(
    ("card", "attribute", "text"),
    [(Card(configured=False), "config", "0\n"), (Card(checkstopped=True), "chkstop", "1\n")],
)
def test_adapters_that_are_off_stay_in_the_guest(card: Card, attribute: str, text: str) -> None:
    state = guest(PlugCard(5, card), scan())

    assert shown(state) == ALL
    assert read(state, f"/sys/bus/ap/devices/{QUEUE}/{attribute}") == text
    assert read(state, f"/sys/bus/ap/devices/card05/{attribute}") == text


def test_a_queue_changes_one_state_a_scan() -> None:
    stopped = guest(PlugCard(5, Card(checkstopped=True)), scan())

    once = run(stopped, PlugCard(5, Card(configured=False)), scan()).state
    twice = scan().apply(once).state

    assert (once.queues[QUEUE].checkstopped, once.queues[QUEUE].configured) == (False, True)
    assert (twice.queues[QUEUE].checkstopped, twice.queues[QUEUE].configured) == (False, False)
    assert not once.cards[5].configured


def test_a_partition_without_domains_has_no_devices() -> None:
    state = guest(SetDomains(ApMask()), scan())

    assert (state.cards, state.queues, shown(state)) == ({}, {}, ["05.", "06."])


# Resets.


def test_a_queue_whose_reset_ended_oddly_is_not_passed_on() -> None:
    state = guest(SetReset(QUEUE, UNKNOWN_CODE))
    assert ResetDevice(ONE).apply(state).errno is Errno.EIO

    after = ResetDevice(ONE).apply(state).state

    # The next filter sees it.
    assert shown(after) == ALL
    filtered = run(after, change("unassign_domain", 0x47), change("assign_domain", 0x47)).state
    assert shown(filtered) == ALL[2:]


def test_binding_anew_forgets_how_the_reset_ended() -> None:
    state = run(guest(SetReset(QUEUE, UNKNOWN_CODE)), ResetDevice(ONE)).state

    again = run(state, unbind("vfio_ap", QUEUE), SetReset(QUEUE, None), bind("vfio_ap", QUEUE))

    assert state.queues[QUEUE].reset == UNKNOWN_CODE
    assert again.state.queues[QUEUE].reset == Response.NORMAL


def test_a_deconfigured_queue_resets_with_an_error_and_is_passed_on() -> None:
    state = guest(PlugCard(5, Card(configured=False)), scan())

    outcome = ResetDevice(ONE).apply(state)

    assert outcome.errno is Errno.EIO
    assert outcome.state.queues[QUEUE].reset == Response.DECONFIGURED
    assert shown(run(outcome.state, change("assign_domain", 0xAB)).state)[:1] == ["05.0004"]


def test_a_queue_that_was_pulled_resets_as_not_there() -> None:
    state = run(guest(UnplugCard(5)), CloseDevice(ONE)).state

    assert state.queues[QUEUE].reset == Response.Q_NOT_AVAIL
    assert ResetDevice("no-such").apply(state).errno is Errno.ENOENT


@pytest.mark.parametrize("code", [2, 5, 10])
def test_a_reset_must_end(code: int) -> None:
    with pytest.raises(ValueError, match="never gives up"):
        HARDWARE.with_reset(QUEUE, code)


# Opening.


@pytest.mark.parametrize(
    ("operation", "errno"),
    [(OpenDevice(ONE, "other"), Errno.EBUSY), (OpenDevice(TWO, None), Errno.EINVAL),
     (OpenDevice(TWO, "vm"), Errno.EPERM), (OpenDevice(TWO, "other"), None)],
)  # fmt: skip
def test_a_machine_has_one_device_and_a_device_one_machine(
    operation: Operation, errno: Errno | None
) -> None:
    assert operation.apply(guest(create_mdev(TWO))).errno is errno


# Defects of kernels.


@KERNELS
def test_an_unassigned_queue_points_to_its_mdev_after_that_is_gone(traits: Traits) -> None:
    state = guest(
        unbind("vfio_ap", BESIDE), CloseDevice(ONE), change("unassign_adapter", 5), traits=traits
    )
    assert unbind("vfio_ap", QUEUE).apply(state).hazards == ()

    gone = run(state, remove_mdev(ONE), unbind("vfio_ap", QUEUE))

    assert gone.hazards == (f"{USE_AFTER_FREE}: {QUEUE}",)


def test_a_queue_that_is_assigned_anew_points_right() -> None:
    state = guest(unbind("vfio_ap", BESIDE), CloseDevice(ONE), change("unassign_adapter", 5))

    again = run(
        state,
        remove_mdev(ONE),
        create_mdev(TWO),
        configure(TWO, ApMatrix.of([5], [4]).config_text()),
        unbind("vfio_ap", QUEUE),
    )

    assert (again.errno, again.hazards) == (None, ())


@pytest.mark.parametrize(("traits", "count"), [(OLD, 1), (NEW, 0)], ids=["6.12", "7.2"])
@pytest.mark.parametrize("machine", [UnplugCard(5), PlugCard(9, Card())])
def test_a_host_that_changes_takes_a_lock_of_no_machine(
    traits: Traits, count: int, machine: Operation
) -> None:
    idle = guest(CloseDevice(ONE), set_apmask("-9"), change("assign_adapter", 9), traits=traits)

    assert run(idle, machine, scan()).hazards == (f"{LOCK_AT_NULL}: {ONE}",) * count
    assert run(guest(traits=traits), machine, scan()).hazards == ()


def test_vfio_ap_that_loads_between_change_and_scan_filters_once_more() -> None:
    waiting = booted(HARDWARE, OLD, apmask="0x", drivers=["cex4queue"])

    state = run(
        waiting,
        PlugCard(9, Card()),
        LoadDriver("vfio_ap"),
        create_mdev(ONE),
        configure(ONE, ApMatrix.of([9], [4]).config_text()),
        scan(),
    ).state

    assert shown(state) == ["09.0004"]

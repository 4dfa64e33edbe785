"""The examples of the documents, done on the real kernel.

The kernel document (Documentation/arch/s390/vfio-ap.rst), IBM's page on setting up adapter
resources for pass-through, and the talk "vfio-ap: The Perils of the Weird" (KVM Forum 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from harness.ap.matrix_device import MatrixDevice
from harness.ap.workbench import Workbench
from harness.model.ap.levels import effective, eligible
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix
from harness.testing import must_fail
from suites.vfio_ap.test_masks import check_written

# -- the kernel document: three guests --------------------------------------------------------

BY_ADAPTER = ("apmask", "-5,-6", "0xf9" + 62 * "f")
BY_DOMAIN = (
    "aqmask",
    "-4,-0x47,-0xab,-0xff",
    "0xf7fffffffffffffffeffffffffffffffffffffffffeffffffffffffffffffffe",
)
GUESTS: Mapping[int, tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]] = {
    1: ((5, 6), (4, 0xAB), ("05.0004", "05.00ab", "06.0004", "06.00ab")),
    2: ((5,), (0x47, 0xFF), ("05.0047", "05.00ff")),
    3: ((6,), (0x47, 0xFF), ("06.0047", "06.00ff")),
}


@pytest.mark.rule("AP-03", "AP-05")
@pytest.mark.parametrize(("name", "change", "wanted"), [BY_ADAPTER, BY_DOMAIN])
def test_the_queues_are_secured(ap: Workbench, name: str, change: str, wanted: str) -> None:
    """Both commands of the document give exactly the mask that it prints."""
    check_written(ap, name, change, wanted)


@pytest.mark.negative_control("AP-03")
def test_bits_counted_from_the_right_are_noticed(ap: Workbench) -> None:
    """Bits 249 and 250 are the sixth and seventh from the right: another mask than is printed."""
    name, _, wanted = BY_ADAPTER

    with must_fail():
        check_written(ap, name, "-249,-250", wanted)


@pytest.mark.parametrize(("name", "change", "wanted"), [BY_ADAPTER, BY_DOMAIN])
def test_the_secured_queues_go_to_vfio_ap(
    ap: Workbench, name: str, change: str, wanted: str
) -> None:
    """The eight queues of the example are bound to vfio_ap, whichever way was taken."""
    ap.bus.write(name, change)
    bound = {state.name for state in ap.bus.queues.values() if state.driver == "vfio_ap"}

    assert bound >= {f"{a:02x}.{d:04x}" for a in (5, 6) for d in (4, 0x47, 0xAB, 0xFF)}


@pytest.fixture
def three(freed: Workbench) -> dict[int, MatrixDevice]:
    """The three devices of the document."""
    return {
        guest: freed.device().configure(adapters=adapters, domains=domains)
        for guest, (adapters, domains, _) in GUESTS.items()
    }


def check_example(devices: Mapping[int, MatrixDevice], guest: int, wanted: Sequence[str]) -> None:
    """matrix and guest_matrix of a guest show exactly *wanted*."""
    device = devices[guest]
    assert device.matrix == device.guest_matrix == tuple(wanted), " ".join(device.guest_matrix)


@pytest.mark.rule("AP-02", "AP-08")
@pytest.mark.parametrize("guest", [1, 2, 3])
def test_the_three_guests_have_their_queues(three: dict[int, MatrixDevice], guest: int) -> None:
    """Each guest of the document gets the queues of its table, all at the same time."""
    check_example(three, guest, GUESTS[guest][2])


@pytest.mark.negative_control("AP-02", "AP-08")
def test_another_guests_queues_are_noticed(three: dict[int, MatrixDevice]) -> None:
    """Guest 2 does not have the queues of guest 3."""
    with must_fail():
        check_example(three, 2, GUESTS[3][2])


def test_every_queue_is_assigned(freed: Workbench, three: dict[int, MatrixDevice]) -> None:
    """The three guests divide the eight queues; none is left."""
    seen = {state.name: state.status for state in freed.bus.queues.values() if state.status}

    assert set(seen.values()) == {"assigned"}, seen


# -- IBM's page: 00/0a and 1b -----------------------------------------------------------------


@pytest.fixture
def ibm(ap: Workbench) -> Workbench:
    """Adapters 0x00 and 0x0a with domains 1, 2, 4 and 0x1b, all free."""
    ap.set_domains([1, 2, 4, 0x1B])
    ap.plug(0x00)
    ap.plug(0x0A)
    ap.bus.write("apmask", "-0,-0xa")
    return ap


def test_eight_queues_are_eligible(ibm: Workbench) -> None:
    """Step 2: eight queues have the driver vfio_ap."""
    seen = [state.name for state in ibm.bus.queues.values() if state.driver == "vfio_ap"]

    assert seen == [f"{a:02x}.{d:04x}" for a in (0, 0x0A) for d in (1, 2, 4, 0x1B)]


def check_walk(device: MatrixDevice, ids: Sequence[str], wanted: Sequence[str]) -> None:
    """Two adapters, a domain, a control domain: each is taken, and after it this is shown."""
    steps = (
        ("assign_adapter", "matrix"),
        ("assign_adapter", "matrix"),
        ("assign_domain", "matrix"),
        ("assign_control_domain", "control_domains"),
    )
    shown = [
        (device.write(attribute, text), device.read(look))
        for (attribute, look), text in zip(steps, ids, strict=True)
    ]
    assert shown == [("", text) for text in wanted], shown


@pytest.mark.rule("AP-01", "AP-10", "AP-11", "AP-16")
def test_the_walk_of_the_page(ibm: Workbench) -> None:
    """Steps 3 to 6 show what the page prints after each command."""
    check_walk(
        ibm.device(),
        ["0x00", "0x0a", "0x001b", "0x001b"],
        ["00.", "00.\n0a.", "00.001b\n0a.001b", "001b"],
    )


@pytest.mark.negative_control("AP-11")
def test_a_walk_from_elsewhere_is_noticed(freed: Workbench) -> None:
    """A device that has a control domain already shows two at the end."""
    device = freed.device().configure(control=(0x47,))

    with must_fail():
        check_walk(device, ["5", "6", "4", "4"], ["05.", "05.\n06.", "05.0004\n06.0004", "0004"])


# -- the talk: conflicts ----------------------------------------------------------------------

DECK = {1: ((1, 2), (1,)), 2: ((2, 3), (1, 2)), 3: ((1,), (2,))}


def check_conflict(ap: Workbench, first: int, second: int, *, conflicts: bool) -> None:
    """The second guest of the talk can, or cannot, have its queues beside the first."""
    adapters, domains = DECK[first]
    ap.device().configure(adapters=adapters, domains=domains)
    device = ap.device()
    adapters, domains = DECK[second]
    errors = [device.assign_domain(domain) for domain in domains]
    errors += [device.assign_adapter(adapter) for adapter in adapters]
    assert ("EADDRINUSE" in errors) == conflicts, f"errors: {errors}"


@pytest.fixture
def deck(ap: Workbench) -> Workbench:
    """Adapters 1 to 3 are free; none is there, which matters to nobody."""
    ap.bus.write("apmask", "-1,-2,-3")
    return ap


@pytest.mark.rule("AP-09")
@pytest.mark.parametrize(
    ("first", "second", "conflicts"), [(1, 2, True), (1, 3, False), (2, 3, False)]
)
def test_guests_of_the_talk(deck: Workbench, first: int, second: int, conflicts: bool) -> None:
    """Guests 1 and 2 conflict on (2,1); guest 3 conflicts with none."""
    check_conflict(deck, first, second, conflicts=conflicts)


@pytest.mark.negative_control("AP-09")
def test_a_conflict_that_is_none_is_noticed(deck: Workbench) -> None:
    """A check that takes guests 1 and 3 for rivals fails."""
    with must_fail():
        check_conflict(deck, 1, 3, conflicts=True)


# -- three levels, and any number -------------------------------------------------------------


def check_levels(ap: Workbench, device: MatrixDevice) -> None:
    """The guest gets what partition, host and device have, computed from their masks alone."""
    apmask, aqmask = (ApMask.written(mask) for mask in ap.bus.masks)
    partition = ap.adapters.hardware.configuration
    lpar = ApMatrix(partition.adapters, partition.domains, partition.control_domains)
    masks = [ApMask.written(mask) for mask in device.ap_config.split(",")]
    wanted = eligible(lpar, apmask, aqmask, ApMatrix(*masks))
    seen = set(device.guest_matrix)
    assert seen == {str(queue) for queue in wanted}, f"seen {sorted(seen)}"


@pytest.mark.rule("AP-27")
@pytest.mark.usefixtures("needs_ap_config")
def test_a_queue_must_be_in_all_three(freed: Workbench) -> None:
    """guest_matrix is what the partition has, vfio_ap has, and the device has."""
    freed.free(0x70)
    device = freed.device().configure(adapters=(5, 6, 0x70), domains=(4, 0x47, 0x30))

    check_levels(freed, device)


@pytest.mark.negative_control("AP-27")
@pytest.mark.usefixtures("needs_ap_config")
def test_a_level_that_lies_is_noticed(freed: Workbench) -> None:
    """A partition that has lost adapter 6 behind the kernel's back fails the check."""
    device = freed.device().configure(adapters=(5, 6), domains=(4,))
    freed.adapters.unplug(6)

    with must_fail():
        check_levels(freed, device)


LEVELS = [
    ApMatrix.of(adapters, domains, domains)
    for adapters, domains in (
        ((0, 1, 2, 5), (4, 0x47)),
        ((1, 2, 5, 9), (4, 0x47, 0xAB)),
        ((2, 5, 0xFF), (0x47, 0xFF)),
    )
]


def check_nested(levels: Sequence[ApMatrix], result: ApMatrix) -> None:
    """A bit is effective iff every level has it; masks have full size at each."""
    for name in ("adapters", "domains", "control_domains"):
        masks = [getattr(level, name) for level in levels]
        wanted = [number for number in range(256) if all(number in mask for mask in masks)]
        assert list(getattr(result, name)) == wanted, f"{name}: {getattr(result, name)}"


@pytest.mark.rule("AP-21")
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_masks_nest(depth: int) -> None:
    """What a guest of any depth may use is the AND of the masks above it and its own."""
    levels = LEVELS[:depth]

    check_nested(levels, effective(*levels))


@pytest.mark.negative_control("AP-21")
def test_masks_that_replace_are_noticed() -> None:
    """If the last level's masks counted alone, more could be used than the levels above have."""
    with must_fail():
        check_nested(LEVELS, LEVELS[-1])


# -- where documents and kernel disagree ------------------------------------------------------


def test_a_shared_queue_is_not_busy(freed: Workbench) -> None:
    """The kernel document says EBUSY for a queue of another device; the kernel EADDRINUSE."""
    freed.device().configure(adapters=(5,), domains=(4,))

    assert freed.device().configure(domains=(4,)).assign_adapter(5) == "EADDRINUSE"


def test_hot_plug_is_called_hotplug(ap: Workbench) -> None:
    """The kernel document calls the feature ``dyn``; the kernel ``hotplug``."""
    assert "hotplug" in ap.parent.features
    assert "dyn" not in ap.parent.features


def test_the_message_about_a_mask_is_another(freed: Workbench) -> None:
    """The document's "Userspace may not re-assign queue" is not what the kernel says."""
    freed.device().configure(adapters=(5,), domains=(4,))
    mark = freed.log_mark()
    freed.bus.write("apmask", "+5")
    said = freed.log_since(mark)

    assert "Can not reserve queue 05.0004 for host driver: in use by mdev" in said
    assert "may not re-assign" not in said


def test_a_matrix_in_use_can_be_changed(freed: Workbench) -> None:
    """The talk, and QEMU's document, say that a matrix in use is fixed; the kernel changes it."""
    device = freed.device().configure(adapters=(5, 6), domains=(4,))
    freed.client().open(device)

    assert (device.unassign_adapter(6), device.guest_matrix) == ("", ("05.0004",))


def test_an_unbound_queue_can_be_assigned(freed: Workbench) -> None:
    """Comments in the source promise EADDRNOTAVAIL for an unbound queue; it is filtered."""
    freed.bus.unbind("05.0004")
    device = freed.device().configure(adapters=(5,))

    assert (device.assign_domain(4), device.guest_matrix) == ("", (".0004",))

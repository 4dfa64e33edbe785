"""Which queues are the host's: apmask and aqmask (vfio-ap.rst; ap_bus.c)."""

from __future__ import annotations

import pytest

from harness.ap.ap_host import ApHost
from harness.ap.workbench import Workbench
from harness.model.ap.mask import ApMask
from harness.testing import must_fail
from suites.vfio_ap.conftest import OpenApHost

FULL = "0x" + 64 * "f"
EMPTY = "0x" + 64 * "0"


def left(digits: str) -> str:
    """Return a mask that begins with *digits* and is zero after them."""
    return "0x" + digits.ljust(64, "0")


ABSOLUTE = [
    ("0xf9" + 62 * "f", "0xf9" + 62 * "f"),
    (64 * "a", "0x" + 64 * "a"),
    ("0x" + 64 * "A", "0x" + 64 * "a"),
    ("5", left("5")),
    ("0xffff", left("ffff")),
    ("0x", EMPTY),
    ("", EMPTY),
    ("0", EMPTY),
]

RELATIVE = [
    ("-5,-6", "0xf9" + 62 * "f"),
    ("-5", "0xfb" + 62 * "f"),
    ("-0x5", "0xfb" + 62 * "f"),
    ("-05", "0xfb" + 62 * "f"),
    ("-0-7", "0x00" + 62 * "f"),
    ("-0-255", EMPTY),
    ("-255", "0x" + 63 * "f" + "e"),
    ("-5,+5", FULL),
    ("-5,", "0xfb" + 62 * "f"),
    ("-4,-0x47,-0xab,-0xff", "0xf7fffffffffffffffeffffffffffffffffffffffffeffffffffffffffffffffe"),
]

REFUSED = ["+256", "-256", "-0x100", "+", "-", "+5, -6", "5,6", "0x" + 65 * "f", "zz", "-5-"]


def check_written(ap: Workbench, name: str, text: str, wanted: str) -> None:
    """The kernel accepts *text* and then shows *wanted*."""
    error = ap.bus.write(name, text)
    seen = ap.bus.read(name)
    assert (error, seen) == ("", wanted), f"{text!r} gave {error or 'no error'} and {seen}"


@pytest.mark.rule("AP-05")
@pytest.mark.parametrize(("text", "wanted"), ABSOLUTE)
def test_a_mask_may_be_written_as_hex(by_domain: Workbench, text: str, wanted: str) -> None:
    """An absolute mask is hex, with or without 0x, padded with zeros on the right."""
    check_written(by_domain, "apmask", text, wanted)


@pytest.mark.rule("AP-05")
@pytest.mark.parametrize(("text", "wanted"), RELATIVE)
def test_a_mask_may_be_changed_bit_by_bit(by_adapter: Workbench, text: str, wanted: str) -> None:
    """A relative change is a list of +n, -n and ranges; n is decimal, 0x hex or octal."""
    check_written(by_adapter, "aqmask", text, wanted)


@pytest.mark.negative_control("AP-05")
@pytest.mark.parametrize("wanted", ["0x" + "5".rjust(64, "0"), FULL])
def test_a_mask_padded_on_the_left_is_noticed(by_domain: Workbench, wanted: str) -> None:
    """A short mask is not a number: 5 is not the last bits, and is not ignored."""
    with must_fail():
        check_written(by_domain, "apmask", "5", wanted)


def check_refused(ap: Workbench, name: str, text: str) -> None:
    """The kernel refuses *text* with EINVAL and changes nothing."""
    before = ap.bus.read(name)
    error = ap.bus.write(name, text)
    assert error == "EINVAL", f"{text!r} gave {error or 'no error'}"
    assert ap.bus.read(name) == before, f"{text!r} was refused, but {name} changed"


@pytest.mark.rule("AP-05")
@pytest.mark.parametrize("name", ["apmask", "aqmask"])
@pytest.mark.parametrize("text", REFUSED)
def test_other_masks_are_refused(ap: Workbench, name: str, text: str) -> None:
    """Bits that are not there, signs alone, blanks, 65 digits and other words are EINVAL."""
    check_refused(ap, name, text)


@pytest.mark.negative_control("AP-05")
def test_an_accepted_mask_is_noticed(ap: Workbench) -> None:
    """A mask that is right is not refused."""
    with must_fail():
        check_refused(ap, "apmask", "-5")


# -- at boot ----------------------------------------------------------------------------------


def check_at_boot(host: ApHost, wanted: tuple[str, str]) -> None:
    """The masks of a host that has just come up are *wanted*."""
    seen = tuple(host.read_text(f"/sys/bus/ap/{name}").strip() for name in ("apmask", "aqmask"))
    assert seen == wanted, " ".join(seen)


@pytest.mark.rule("AP-05")
def test_masks_can_be_given_at_boot(open_ap_host: OpenApHost) -> None:
    """ap.apmask= and ap.aqmask= take the same texts; a relative one begins with no bit at all."""
    host = open_ap_host(append="ap.apmask=0xffff ap.aqmask=+0-3,+0x47", name="masked")

    check_at_boot(host, (left("ffff"), str(ApMask.of([0, 1, 2, 3, 0x47]))))


@pytest.mark.negative_control("AP-05")
def test_a_host_without_such_words_is_noticed(open_ap_host: OpenApHost) -> None:
    """A relative text that began with all bits would leave them all."""
    with must_fail():
        check_at_boot(open_ap_host(name="plain"), (left("ffff"), FULL))


# -- whose a queue is -------------------------------------------------------------------------

SPLITS = [("-5", "-0x47"), ("-5,-6", "+0"), ("+0", "-4,-0xff"), ("-0-255", "-0-255")]


def is_the_hosts(ap: Workbench, queue: str) -> bool:
    """Say whether both bits of *queue* are set."""
    adapter, domain = (int(part, 16) for part in queue.split("."))
    apmask, aqmask = (ApMask.written(mask) for mask in ap.bus.masks)
    return adapter in apmask and domain in aqmask


def is_the_hosts_by_adapter(ap: Workbench, queue: str) -> bool:
    """Say whether the bit of its adapter is set: a wrong rule."""
    return int(queue.partition(".")[0], 16) in ApMask.written(ap.bus.read("apmask"))


def check_owners(ap: Workbench, rule: object = is_the_hosts) -> None:
    """Each queue is with the drivers that *rule* says."""
    assert callable(rule)
    seen = {queue.name: queue.driver for queue in ap.bus.queues.values()}
    wanted = {name: "cex4queue" if rule(ap, name) else "vfio_ap" for name in seen}
    wrong = [
        f"{name}: {seen[name]}, not {wanted[name]}" for name in seen if seen[name] != wanted[name]
    ]
    assert not wrong, "; ".join(wrong)


@pytest.mark.rule("AP-04")
@pytest.mark.parametrize(("apmask", "aqmask"), SPLITS)
def test_a_queue_is_free_if_either_bit_is_zero(ap: Workbench, apmask: str, aqmask: str) -> None:
    """vfio_ap gets a queue iff its bit in apmask or its bit in aqmask is zero."""
    ap.bus.write("apmask", apmask)
    ap.bus.write("aqmask", aqmask)

    check_owners(ap)


@pytest.mark.negative_control("AP-04")
def test_a_rule_that_forgets_domains_is_noticed(ap: Workbench) -> None:
    """With domain 0x47 freed, the adapter alone does not say whose a queue is."""
    ap.bus.write("aqmask", "-0x47")

    with must_fail():
        check_owners(ap, is_the_hosts_by_adapter)


def test_queues_return_to_the_host(freed: Workbench) -> None:
    """Adapters given back are bound to the default driver again."""
    freed.bus.write("apmask", "+5,+6")

    check_owners(freed)


# -- queues that a matrix device has ----------------------------------------------------------


def check_kept(ap: Workbench, name: str, text: str) -> None:
    """The kernel refuses to take a queue back from a matrix device: EBUSY, nothing changed."""
    before = ap.bus.masks
    error = ap.bus.write(name, text)
    assert error == "EBUSY", f"{text!r} gave {error or 'no error'}"
    assert ap.bus.masks == before, "refused, but a mask changed"


@pytest.mark.rule("AP-06")
def test_an_adapter_in_a_matrix_device_is_not_given_back(freed: Workbench) -> None:
    """Setting a bit of apmask that would take a queue from a matrix device fails with EBUSY."""
    freed.device().configure(adapters=(5,), domains=(4,))

    check_kept(freed, "apmask", "+5")


@pytest.mark.rule("AP-06")
def test_a_domain_in_a_matrix_device_is_not_given_back(ap: Workbench) -> None:
    """The same holds for aqmask."""
    ap.bus.write("aqmask", "-4")
    ap.device().configure(adapters=(5,), domains=(4,))

    check_kept(ap, "aqmask", "+4")


@pytest.mark.negative_control("AP-06")
def test_an_adapter_in_no_matrix_device_is_given_back(freed: Workbench) -> None:
    """A matrix device that has other queues does not keep adapter 6."""
    freed.device().configure(adapters=(5,), domains=(4,))

    with must_fail():
        check_kept(freed, "apmask", "+6")


def check_told(log: str, uuid: str, queue: str) -> None:
    """The kernel log says which queue of which device is in the way."""
    wanted = f"vfio_ap_mdev {uuid}: Can not reserve queue {queue} for host driver: in use by mdev"
    assert wanted in log, f"no {wanted!r} in:\n{log}"


@pytest.mark.rule("AP-06")
def test_the_log_says_what_keeps_a_queue(freed: Workbench) -> None:
    """A refused change of a mask names the queue and the matrix device in the kernel log."""
    device = freed.device().configure(adapters=(5,), domains=(4,))
    mark = freed.log_mark()
    freed.bus.write("apmask", "+5")

    check_told(freed.log_since(mark), device.uuid, "05.0004")


@pytest.mark.negative_control("AP-06")
def test_a_change_without_a_word_is_noticed(freed: Workbench) -> None:
    """A change that is accepted says nothing."""
    device = freed.device().configure(adapters=(5,), domains=(4,))
    mark = freed.log_mark()
    freed.bus.write("apmask", "+6")

    with must_fail():
        check_told(freed.log_since(mark), device.uuid, "05.0004")


def test_an_adapter_without_assigned_domains_is_given_back(freed: Workbench) -> None:
    """A matrix device with an adapter and no domain has no queue to keep."""
    freed.device().configure(adapters=(5,))

    assert freed.bus.write("apmask", "+5") == ""

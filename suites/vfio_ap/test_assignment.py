"""Assigning adapters and domains to a matrix device, and every refusal (vfio_ap_ops.c)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from harness.ap.matrix_device import MatrixDevice
from harness.ap.workbench import Workbench
from harness.testing import must_fail

IDS = ["adapter", "domain", "control_domain"]
ASSIGN = [f"assign_{name}" for name in IDS]
UNASSIGN = [f"unassign_{name}" for name in IDS]


def product(adapters: Iterable[int], domains: Iterable[int]) -> tuple[str, ...]:
    """Return the APQNs of all pairs, in the order of ``matrix``."""
    return tuple(f"{a:02x}.{d:04x}" for a in sorted(adapters) for d in sorted(domains))


def check_product(device: MatrixDevice, adapters: Iterable[int], domains: Iterable[int]) -> None:
    """``matrix`` is the product of what was assigned."""
    assert device.matrix == product(adapters, domains), " ".join(device.matrix)


@pytest.mark.rule("AP-02")
def test_queues_are_adapters_times_domains(freed: Workbench) -> None:
    """A matrix device has every assigned domain on every assigned adapter."""
    device = freed.device().configure(adapters=(6, 5), domains=(0xAB, 4, 0x47))

    check_product(device, (5, 6), (4, 0x47, 0xAB))


@pytest.mark.negative_control("AP-02")
def test_pairs_instead_of_a_product_are_noticed(freed: Workbench) -> None:
    """One domain fewer is expected than was assigned."""
    device = freed.device().configure(adapters=(5, 6), domains=(4, 0x47))

    with must_fail():
        check_product(device, (5, 6), (4,))


def check_prefixes(device: MatrixDevice, wanted: tuple[str, ...]) -> None:
    """``matrix`` shows what there is half of, and no queue."""
    assert device.matrix == wanted, " ".join(device.matrix)


@pytest.mark.rule("AP-10")
def test_adapters_alone_are_no_queues(freed: Workbench) -> None:
    """With adapters only, ``matrix`` shows ``05.``."""
    check_prefixes(freed.device().configure(adapters=(6, 5)), ("05.", "06."))


@pytest.mark.rule("AP-10")
def test_domains_alone_are_no_queues(freed: Workbench) -> None:
    """With domains only, ``matrix`` shows ``.0047``."""
    check_prefixes(freed.device().configure(domains=(0xAB, 0x47)), (".0047", ".00ab"))


@pytest.mark.negative_control("AP-10")
def test_a_queue_is_no_prefix(freed: Workbench) -> None:
    """With both, whole queues are shown."""
    with must_fail():
        check_prefixes(freed.device().configure(adapters=(5,), domains=(4,)), ("05.",))


def check_no_control(device: MatrixDevice) -> None:
    """No control domain is assigned."""
    assert device.control_domains == (), " ".join(device.control_domains)


@pytest.mark.rule("AP-11")
def test_a_usage_domain_is_no_control_domain(freed: Workbench) -> None:
    """Assigning a usage domain does not assign the control domain."""
    check_no_control(freed.device().configure(adapters=(5,), domains=(4,)))


@pytest.mark.negative_control("AP-11")
def test_a_control_domain_is_noticed(freed: Workbench) -> None:
    """An assigned control domain is shown, with four digits."""
    with must_fail():
        check_no_control(freed.device().configure(control=(4,)))


def test_control_domains_are_listed_in_order(ap: Workbench) -> None:
    """control_domains lists the assigned ids, the host's or not, four digits each."""
    device = ap.device().configure(control=(0x55, 0x10, 4))

    assert device.control_domains == ("0004", "0010", "0055")


@pytest.mark.parametrize("name", ["adapter", "domain", "control_domain"])
def test_what_is_assigned_may_be_assigned_again(freed: Workbench, name: str) -> None:
    """A second assignment of the same id is accepted and changes nothing."""
    device = freed.device()
    errors = [device.write(f"assign_{name}", "5") for _ in range(2)]

    assert errors == ["", ""]


@pytest.mark.parametrize("name", UNASSIGN)
def test_what_is_not_assigned_may_be_taken_away(ap: Workbench, name: str) -> None:
    """Taking away what is not there is accepted."""
    assert ap.device().write(name, "5") == ""


def test_what_is_taken_away_is_gone(freed: Workbench) -> None:
    """Adapters, domains and control domains can be taken away again."""
    device = freed.device().configure(adapters=(5, 6), domains=(4, 0x47), control=(4,))
    device.unassign_adapter(6)
    device.unassign_domain(4)
    device.unassign_control_domain(4)

    assert (device.matrix, device.control_domains) == (("05.0047",), ())


# -- numbers ----------------------------------------------------------------------------------


def check_error(device: MatrixDevice, attribute: str, text: str, wanted: str) -> None:
    """The write gives this errno (empty: none)."""
    error = device.write(attribute, text)
    assert error == wanted, (
        f"{attribute} {text!r}: {error or 'accepted'}, not {wanted or 'accepted'}"
    )


@pytest.mark.rule("AP-16")
@pytest.mark.parametrize("text", ["10", "0xa", "0x0A", "012", "+10"])
def test_ids_are_numbers_of_any_base(ap: Workbench, text: str) -> None:
    """Ids are decimal, 0x hex or octal; all of these are ten."""
    device = ap.device()
    check_error(device, "assign_adapter", text, "")

    check_prefixes(device, ("0a.",))


@pytest.mark.rule("AP-16")
@pytest.mark.parametrize("attribute", ASSIGN + UNASSIGN)
@pytest.mark.parametrize("text", ["1b", "zz", "0x", "-1", "", "5 6", "5,6", "08"])
def test_what_is_no_number_is_refused(ap: Workbench, attribute: str, text: str) -> None:
    """Hex without 0x, signs, lists, words and nothing are EINVAL."""
    check_error(ap.device(), attribute, text, "EINVAL")


@pytest.mark.negative_control("AP-16")
def test_hex_with_0x_is_no_error(ap: Workbench) -> None:
    """0x1b is a number."""
    with must_fail():
        check_error(ap.device(), "assign_domain", "0x1b", "EINVAL")


@pytest.mark.parametrize("attribute", ASSIGN + UNASSIGN)
def test_a_number_without_end_is_out_of_range(ap: Workbench, attribute: str) -> None:
    """A number that does not fit into 64 bits is ERANGE."""
    check_error(ap.device(), attribute, "0x10000000000000000", "ERANGE")


@pytest.mark.rule("AP-07")
@pytest.mark.parametrize("attribute", ASSIGN + UNASSIGN)
def test_an_id_above_the_highest_is_refused(ap: Workbench, attribute: str) -> None:
    """An id above ap_max_adapter_id or ap_max_domain_id is ENODEV."""
    check_error(ap.device(), attribute, "256", "ENODEV")


@pytest.mark.negative_control("AP-07")
def test_the_highest_id_is_accepted(ap: Workbench) -> None:
    """255 is the highest id of this machine, not above it."""
    with must_fail():
        check_error(ap.device(), "assign_adapter", "255", "ENODEV")


# -- whose queues -----------------------------------------------------------------------------


@pytest.mark.rule("AP-07")
def test_the_hosts_adapter_is_refused(ap: Workbench) -> None:
    """An adapter that makes a queue of the host's with a domain already there: EADDRNOTAVAIL."""
    device = ap.device().configure(domains=(4,))
    check_error(device, "assign_adapter", "5", "EADDRNOTAVAIL")

    check_prefixes(device, (".0004",))


@pytest.mark.rule("AP-07")
def test_the_hosts_domain_is_refused(ap: Workbench) -> None:
    """A domain that makes a queue of the host's with an adapter already there: EADDRNOTAVAIL."""
    device = ap.device().configure(adapters=(5,))
    check_error(device, "assign_domain", "4", "EADDRNOTAVAIL")

    check_prefixes(device, ("05.",))


def test_the_host_may_have_a_queue_that_is_not_there(ap: Workbench) -> None:
    """The masks decide, not the devices: an absent queue can be the host's too."""
    device = ap.device().configure(adapters=(9,))

    check_error(device, "assign_domain", "4", "EADDRNOTAVAIL")


def test_half_a_queue_is_never_refused(ap: Workbench) -> None:
    """Without a domain an adapter makes no queue: any is accepted, the host's too."""
    check_error(ap.device(), "assign_adapter", "5", "")


@pytest.mark.rule("AP-07", "AP-08")
def test_an_adapter_that_shares_a_queue_is_refused(freed: Workbench) -> None:
    """An adapter that makes a queue of another device's: EADDRINUSE, and it is not assigned."""
    freed.device().configure(adapters=(5,), domains=(4,))
    other = freed.device().configure(domains=(4,))
    check_error(other, "assign_adapter", "5", "EADDRINUSE")

    check_prefixes(other, (".0004",))


@pytest.mark.rule("AP-07", "AP-08")
def test_a_domain_that_shares_a_queue_is_refused(freed: Workbench) -> None:
    """A domain that makes a queue of another device's: EADDRINUSE, and it is not assigned."""
    freed.device().configure(adapters=(5,), domains=(4,))
    other = freed.device().configure(adapters=(5,))
    check_error(other, "assign_domain", "4", "EADDRINUSE")

    check_prefixes(other, ("05.",))


@pytest.mark.negative_control("AP-08")
def test_another_domain_of_the_same_adapter_shares_nothing(freed: Workbench) -> None:
    """Two devices may have an adapter each has other domains of."""
    freed.device().configure(adapters=(5,), domains=(4,))
    other = freed.device().configure(domains=(0x47,))

    with must_fail():
        check_error(other, "assign_adapter", "5", "EADDRINUSE")


def test_absent_queues_are_not_shared_either(freed: Workbench) -> None:
    """The check is of ids: a queue that no machine has is refused all the same."""
    freed.free(9)
    freed.device().configure(adapters=(9,), domains=(0x30,))
    other = freed.device().configure(domains=(0x30,))

    check_error(other, "assign_adapter", "9", "EADDRINUSE")


def test_a_control_domain_belongs_to_nobody(freed: Workbench) -> None:
    """Control domains are not checked: two devices may have one, and the host too."""
    freed.device().configure(control=(4,))

    check_error(freed.device(), "assign_control_domain", "4", "")


def check_shared_told(log: str, assignee: str, owner: str, queue: str) -> None:
    """The kernel log says which queue belongs to which device."""
    wanted = (
        f"vfio_ap_mdev {assignee}: Userspace may not assign queue {queue} to mdev: "
        f"already assigned to {owner}"
    )
    assert wanted in log, f"no {wanted!r} in:\n{log}"


@pytest.mark.rule("AP-08")
@pytest.mark.negative_control("AP-08")
def test_the_log_says_whose_a_queue_is(freed: Workbench) -> None:
    """A refused assignment names the queue and both devices in the kernel log, each as it is."""
    owner = freed.device().configure(adapters=(5,), domains=(0xAB,))
    other = freed.device().configure(domains=(0xAB,))
    mark = freed.log_mark()
    other.assign_adapter(5)
    said = freed.log_since(mark)

    check_shared_told(said, other.uuid, owner.uuid, "05.00ab")
    with must_fail():
        check_shared_told(said, owner.uuid, other.uuid, "05.00ab")


# -- what a queue says ------------------------------------------------------------------------


def test_a_queue_says_whether_a_device_has_it(freed: Workbench) -> None:
    """``status`` of a queue with vfio_ap is ``assigned`` or ``unassigned``."""
    freed.device().configure(adapters=(5,), domains=(4,))

    assert [freed.bus.status(name) for name in ("05.0004", "05.0047")] == [
        "assigned",
        "unassigned",
    ]


def test_a_queue_of_the_host_says_nothing(freed: Workbench) -> None:
    """``status`` is there only while vfio_ap has the queue."""
    assert freed.bus.status("04.0004") == ""

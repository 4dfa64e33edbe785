"""What the AP bus shows of the adapters (drivers/s390/crypto/ap_bus.c, ap_card.c)."""

from __future__ import annotations

import re
from collections.abc import Collection

import pytest

from harness.ap.workbench import Workbench
from harness.model.ap.mask import ApMask
from harness.testing import must_fail

APQN = re.compile(r"[0-9a-f]{2}\.[0-9a-f]{4}")


def check_apqns(names: Collection[str]) -> None:
    """Every name of a queue is an APQN: adapter, point, domain."""
    strange = [name for name in names if not APQN.fullmatch(name)]
    assert names, "no queue at all"
    assert not strange, f"no APQNs: {', '.join(strange)}"


@pytest.mark.rule("AP-01")
def test_queues_are_named_by_apqn(ap: Workbench) -> None:
    """A queue is named by two hex digits of its adapter, a point, four of its domain."""
    check_apqns(ap.bus.queue_names)


@pytest.mark.negative_control("AP-01")
def test_a_name_without_leading_zeros_is_noticed(ap: Workbench) -> None:
    """A card has no APQN: its name fails the check."""
    with must_fail():
        check_apqns(ap.bus.cards)


def check_present(ap: Workbench, adapters: Collection[int], domains: Collection[int]) -> None:
    """The queues of the bus are the product of these adapters and domains."""
    wanted = {f"{adapter:02x}.{domain:04x}" for adapter in adapters for domain in domains}
    seen = set(ap.bus.queue_names)
    assert seen == wanted, f"missing {sorted(wanted - seen)}, not expected {sorted(seen - wanted)}"


@pytest.mark.rule("AP-27")
def test_the_bus_has_every_queue_of_the_partition(ap: Workbench) -> None:
    """The queues of the host are what the partition has: adapters times usage domains."""
    check_present(ap, ap.cards, ap.domains)


@pytest.mark.negative_control("AP-27")
def test_an_adapter_the_partition_lacks_is_noticed(ap: Workbench) -> None:
    """One adapter more is expected than there is."""
    with must_fail():
        check_present(ap, [*ap.cards, 9], ap.domains)


def check_masks_full(masks: tuple[str, str]) -> None:
    """Both masks have 256 ones, bit 0 leftmost."""
    assert masks == (str(ApMask.full()), str(ApMask.full())), " ".join(masks)


@pytest.mark.rule("AP-03")
def test_by_default_the_host_has_every_queue(ap: Workbench) -> None:
    """apmask and aqmask are 256 ones until somebody changes them."""
    check_masks_full(ap.bus.masks)


@pytest.mark.negative_control("AP-03")
def test_a_mask_with_a_zero_is_noticed(freed: Workbench) -> None:
    """Adapters 5 and 6 freed: apmask is not all ones."""
    with must_fail():
        check_masks_full(freed.bus.masks)


def check_leftmost(mask: str, adapter: int) -> None:
    """Of all bits of *mask* only that of *adapter*, counted from the left, is zero."""
    bits = f"{int(mask, 16):0256b}"
    assert [at for at, bit in enumerate(bits) if bit == "0"] == [adapter], mask


@pytest.mark.rule("AP-03")
def test_bit_0_is_the_leftmost(ap: Workbench) -> None:
    """Taking adapter 5 out clears the sixth bit from the left."""
    ap.bus.write("apmask", "-5")

    check_leftmost(ap.bus.read("apmask"), 5)


@pytest.mark.negative_control("AP-03")
def test_a_bit_counted_from_the_right_is_noticed(ap: Workbench) -> None:
    """Bit 250 is the sixth from the right."""
    ap.bus.write("apmask", "-250")

    with must_fail():
        check_leftmost(ap.bus.read("apmask"), 5)


def check_bindings(ap: Workbench, *, bound: int, queues: int) -> None:
    """``bindings`` counts the queues that have a driver."""
    done = " (complete)" if bound == queues else ""
    assert ap.bus.read("bindings") == f"{bound}/{queues}{done}"


def test_bindings_are_complete(ap: Workbench) -> None:
    """After a scan every queue has a driver, and ``bindings`` says so."""
    count = len(ap.bus.queue_names)

    check_bindings(ap, bound=count, queues=count)


def test_a_queue_without_a_driver_is_counted(ap: Workbench) -> None:
    """A queue taken from its driver is missing in ``bindings``."""
    count = len(ap.bus.queue_names)
    ap.bus.unbind("05.0004", driver="cex4queue")

    check_bindings(ap, bound=count - 1, queues=count)


def test_features_are_those_of_the_machine(ap: Workbench) -> None:
    """``features`` names what QCI says: APSC and APXA here, in this order."""
    assert ap.bus.read("features") == "APSC APXA"


def test_masks_of_the_partition(ap: Workbench) -> None:
    """ap_adapter_mask, ap_usage_domain_mask, ap_control_domain_mask are what QCI says."""
    seen = [
        ap.bus.read(f"ap_{name}_mask") for name in ("adapter", "usage_domain", "control_domain")
    ]
    wanted = [ap.cards, ap.domains, ap.control_domains]

    assert seen == [str(ApMask.of(ids)) for ids in wanted]


def test_highest_ids_are_those_of_the_machine(ap: Workbench) -> None:
    """ap_max_adapter_id and ap_max_domain_id are what QCI says."""
    assert (ap.bus.read("ap_max_adapter_id"), ap.bus.read("ap_max_domain_id")) == ("255", "255")


def test_a_smaller_machine_says_so(small: Workbench) -> None:
    """Another machine has other highest ids."""
    assert (small.bus.read("ap_max_adapter_id"), small.bus.read("ap_max_domain_id")) == (
        "63",
        "79",
    )


def test_a_scan_is_counted(ap: Workbench) -> None:
    """A write to ``scans`` makes one scan, and has ended when it returns."""
    before = int(ap.bus.read("scans"))
    ap.bus.scan()

    assert int(ap.bus.read("scans")) > before


@pytest.mark.parametrize("seconds", ["5", "120"])
def test_the_time_between_scans_can_be_set(ap: Workbench, seconds: str) -> None:
    """config_time takes 5 to 120 seconds."""
    error = ap.bus.write("config_time", seconds)

    assert (error, ap.bus.read("config_time")) == ("", seconds)


@pytest.mark.parametrize("seconds", ["4", "121", "-5", "soon"])
def test_another_time_between_scans_is_refused(ap: Workbench, seconds: str) -> None:
    """config_time refuses everything else with EINVAL and stays as it is."""
    before = ap.bus.read("config_time")
    error = ap.bus.write("config_time", seconds)

    assert (error, ap.bus.read("config_time")) == ("EINVAL", before)


@pytest.mark.parametrize("on", ["1", "0"])
def test_the_poll_thread_can_be_switched(ap: Workbench, on: str) -> None:
    """poll_thread takes 1 and 0."""
    error = ap.bus.write("poll_thread", on)

    assert (error, ap.bus.read("poll_thread")) == ("", on)


def test_the_poll_timeout_is_nanoseconds_up_to_two_minutes(ap: Workbench) -> None:
    """poll_timeout refuses more than 120 s with EINVAL."""
    assert ap.bus.write("poll_timeout", "120000000001") == "EINVAL"


def test_the_default_domain_must_belong_to_the_host(freed: Workbench) -> None:
    """ap_domain refuses a domain that aqmask gives away."""
    freed.bus.write("aqmask", "-0x47")

    assert freed.bus.write("ap_domain", "0x47") == "EINVAL"


def check_binds(ap: Workbench, queue: str) -> None:
    """vfio_ap has *queue*, which is not the host's."""
    assert ap.bus.driver(queue) == "vfio_ap", f"{queue}: {ap.bus.driver(queue) or 'no driver'}"


@pytest.mark.rule("AP-24")
@pytest.mark.parametrize("hwtype", [10, 11, 12, 13, 14])
def test_cex4_and_newer_bind(freed: Workbench, hwtype: int) -> None:
    """Queues of CEX4 (type 10) to CEX8 (type 14) bind to vfio_ap."""
    freed.bus.write("apmask", "-7")
    freed.plug(7, hwtype=hwtype)

    check_binds(freed, "07.0004")


@pytest.mark.negative_control("AP-24")
def test_a_cex3_does_not_bind(freed: Workbench) -> None:
    """A CEX3 (type 9) is older: nobody binds it."""
    freed.bus.write("apmask", "-7")
    freed.plug(7, hwtype=9)

    with must_fail():
        check_binds(freed, "07.0004")


def test_the_bus_ignores_a_cex3(ap: Workbench) -> None:
    """A card older than CEX4 gets no device at all."""
    ap.plug(7, hwtype=9)

    assert "card07" not in ap.bus.cards


def test_a_card_comes_and_goes(ap: Workbench) -> None:
    """A card plugged into the machine has devices after a scan, and none when it has gone."""
    ap.plug(9)
    with_it = "card09" in ap.bus.cards
    ap.unplug(9)

    assert (with_it, "card09" in ap.bus.cards) == (True, False)


def test_another_type_makes_another_card(ap: Workbench) -> None:
    """A card that was exchanged for another type is removed and made anew."""
    ap.plug(6, hwtype=11)

    assert ap.bus.attribute("card06", "hwtype") == "11"


def test_a_deconfigured_card_says_so(ap: Workbench) -> None:
    """``config`` of card and queue is 0 while the card is deconfigured."""
    ap.deconfigure(5)

    assert [ap.bus.attribute(name, "config") for name in ("card05", "05.0004")] == ["0", "0"]


def test_a_checkstopped_card_says_so(ap: Workbench) -> None:
    """``chkstop`` of card and queue is 1 while the card is check-stopped."""
    ap.checkstop(5)

    assert [ap.bus.attribute(name, "chkstop") for name in ("card05", "05.0004")] == ["1", "1"]

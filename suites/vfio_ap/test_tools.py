"""What the tools of s390-tools say and do on such a host."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from xml.etree import ElementTree

import pytest

from harness.ap.matrix_device import UUIDS
from harness.ap.workbench import Workbench
from harness.model.ap.definitions import mdevctl_json, nodedev_xml
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.plan import Guest
from harness.parse.lszcrypt import LszcryptRow, parse_lszcrypt
from harness.testing import must_fail, skip

Definition = Callable[[Guest], list[tuple[str, str]]]


@pytest.fixture
def lszcrypt(freed: Workbench) -> Workbench:
    """A host that has the tool."""
    if not freed.system.succeeds("command -v lszcrypt"):
        skip("the host has no lszcrypt", enabled_by="an image with s390-tools")
    return freed


def rows(ap: Workbench) -> tuple[LszcryptRow, ...]:
    """Return what ``lszcrypt -V`` shows."""
    return parse_lszcrypt(ap.system.run("lszcrypt -V").stdout)


def eligible(ap: Workbench) -> set[str]:
    """Return the queues that ``lszcrypt -V`` shows with driver vfio_ap."""
    return {str(row.apqn) for row in rows(ap) if row.driver == "vfio_ap"}


def check_eligible(seen: Collection[str], wanted: Collection[str]) -> None:
    """The tool shows these queues as vfio_ap's, and no other."""
    assert set(seen) == set(wanted), f"shown: {' '.join(sorted(seen)) or 'none'}"


def bound(ap: Workbench) -> set[str]:
    """Return the queues that vfio_ap has, from sysfs."""
    return {state.name for state in ap.bus.queues.values() if state.driver == "vfio_ap"}


@pytest.mark.rule("AP-23")
def test_lszcrypt_shows_eligible_queues(lszcrypt: Workbench) -> None:
    """``lszcrypt -V`` shows the driver vfio_ap for exactly the queues that it has."""
    check_eligible(eligible(lszcrypt), bound(lszcrypt))


@pytest.mark.negative_control("AP-23")
def test_queues_of_the_host_are_not_eligible(lszcrypt: Workbench) -> None:
    """With all queues given back the tool shows none of those that were eligible."""
    before = bound(lszcrypt)
    lszcrypt.bus.write("apmask", "+5,+6")

    with must_fail():
        check_eligible(eligible(lszcrypt), before)


def test_lszcrypt_shows_types(lszcrypt: Workbench) -> None:
    """``lszcrypt`` names cards by generation and mode: a type 13 accelerator is a CEX7A."""
    types = {row.adapter: row.type for row in rows(lszcrypt) if row.apqn is None}

    assert types == {4: "CEX7A", 5: "CEX7A", 6: "CEX6A"}


def test_lszcrypt_says_what_is_assigned(lszcrypt: Workbench) -> None:
    """For a queue of vfio_ap the tool shows what ``status`` says."""
    device = lszcrypt.device().configure(adapters=(5,), domains=(4, 0x47))
    lszcrypt.client().open(device)
    device.assign_adapter(6)
    device.assign_domain(0x30)
    seen = {str(row.apqn): row.status for row in rows(lszcrypt) if row.driver == "vfio_ap"}

    assert seen == {
        name: state.status for name, state in lszcrypt.bus.queues.items() if state.status
    }


# -- chzdev ---------------------------------------------------------------------------------

FREED = "0xf9" + 62 * "f"
RULES = "/etc/udev/rules.d/41-ap.rules"


@pytest.fixture
def chzdev(ap: Workbench) -> Workbench:
    """A host that has the tool, and where its library finds its locks."""
    if not ap.system.succeeds("command -v chzdev"):
        skip("the host has no chzdev", enabled_by="an image with s390-tools")
    ap.system.run(f"mkdir -p /run/lock && rm -f {RULES}")
    return ap


def check_active(ap: Workbench) -> None:
    """The masks of the running system are those of the page's example."""
    assert ap.bus.read("apmask") == FREED


@pytest.mark.rule("AP-05", "AP-26")
def test_chzdev_changes_the_masks(chzdev: Workbench) -> None:
    """``chzdev --type ap --active apmask=-5,-6`` frees both adapters at once."""
    chzdev.system.run("chzdev --type ap --active apmask=-5,-6")

    check_active(chzdev)


@pytest.mark.negative_control("AP-26")
def test_a_mask_that_chzdev_left_alone_is_noticed(chzdev: Workbench) -> None:
    """A change for the next start alone changes nothing now."""
    chzdev.system.run("chzdev --type ap --persistent apmask=-5,-6")

    with must_fail():
        check_active(chzdev)


def check_persistent(ap: Workbench) -> None:
    """The rule that udev applies at the next start writes the masks and loads vfio_ap."""
    text = ap.system.run(["cat", RULES], check=False).stdout
    wanted = [f'ATTR{{../../bus/ap/apmask}}="{FREED}"', "kmod load vfio_ap"]
    missing = [part for part in wanted if part not in text]
    assert not missing, f"not in {RULES}: {missing}\n{text}"


@pytest.mark.rule("AP-26")
def test_chzdev_keeps_masks_for_the_next_start(chzdev: Workbench) -> None:
    """``chzdev --type ap --persistent`` writes a rule for udev, and changes nothing now."""
    chzdev.system.run("chzdev --type ap --persistent apmask=-5,-6")

    check_persistent(chzdev)
    assert chzdev.bus.read("apmask") == "0x" + 64 * "f"


@pytest.mark.negative_control("AP-26")
def test_an_active_change_is_not_kept(chzdev: Workbench) -> None:
    """A change of the running system alone leaves no rule."""
    chzdev.system.run("chzdev --type ap --active apmask=-5,-6")

    with must_fail():
        check_persistent(chzdev)


def check_defined(ap: Workbench, attributes: Sequence[tuple[str, str]]) -> None:
    """Writing what a definition says, in its order, makes the device that was asked for."""
    device = ap.device()
    errors = [device.write(name, text) for name, text in attributes]
    assert not any(errors), f"refused: {errors}"
    assert device.matrix == ("05.0004", "05.00ab"), " ".join(device.matrix)


def guest(*, adapter: int) -> Guest:
    """Return a guest with that adapter and two domains."""
    return Guest("guest", ApMatrix.of((adapter,), (4, 0xAB), (4,)), UUIDS[0])


def by_mdevctl(wanted: Guest) -> list[tuple[str, str]]:
    """Return what mdevctl writes for its definition."""
    entries = json.loads(mdevctl_json(wanted))["attrs"]
    return [pair for entry in entries for pair in entry.items()]


def by_libvirt(wanted: Guest) -> list[tuple[str, str]]:
    """Return what libvirt writes for its definition."""
    entries = ElementTree.fromstring(nodedev_xml(wanted)).iter("attr")
    return [(entry.attrib["name"], entry.attrib["value"]) for entry in entries]


@pytest.mark.rule("AP-26")
@pytest.mark.parametrize("by", [by_mdevctl, by_libvirt])
def test_a_defined_device_comes_back(freed: Workbench, by: Definition) -> None:
    """A definition (nodedev-define, mdevctl) holds the writes that make the device."""
    check_defined(freed, by(guest(adapter=5)))


@pytest.mark.negative_control("AP-26")
def test_a_definition_of_other_queues_is_noticed(freed: Workbench) -> None:
    """A definition with another adapter fails."""
    with must_fail():
        check_defined(freed, by_mdevctl(guest(adapter=6)))

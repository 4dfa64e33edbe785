"""What the tests of the suites share: one table, for the order of a run and for its workers.

A new shared thing is a new row. A fixture belongs here when making what it stands for takes
about a second or more and many tests can use it; ``seconds`` is what that took when it was
written down, and is corrected by what runs show (`harness.spread.memory`).
"""

from __future__ import annotations

from collections.abc import Collection

import pytest

from harness.settings import SETTINGS
from harness.spread.shared import NOTHING_TURN, Shared

_DEVICES = "resident"
"""The fixture of the keeper of the test devices: who has it wants devices."""

# Of a test's fixtures, the first row that it has all of counts. The last number is its turn:
# first those that want the resident guest as it is after its boot, then its other tests, last
# of them those that end it; then what needs no device; then each kind of other machine; last
# who wants devices in no machine. So a run without workers makes everything once.
TABLE: tuple[tuple[tuple[str, ...], Shared], ...] = (
    (("never_read",), Shared("resident guest", 5, 0)),
    (("nested", "firmware_only"), Shared("resident guest", 5, 2)),
    (("nested",), Shared("resident guest", 5, 1)),
    (("used_machine",), Shared("guest with intel-iommu", 4, 5)),
    (("vtd_guest",), Shared("guest with intel-iommu", 4, 4)),
    (("virtio_guest",), Shared("guest with virtio-iommu", 4, 6)),
    (("amd_guest",), Shared("guest with amd-iommu", 3, 6)),
    (("place",), Shared("grounds of isolation", 8, 8)),
    (("translating",), Shared("guest with virtio disks", 5, 6)),
    (("through_qemu",), Shared("guest behind QEMU", 3, 6)),
    (("intx_guest",), Shared("guest without MSI", 3, 6)),
    (("vfio_guest",), Shared("guest with the tests of Linux", 6, 6)),
    (("card_guest",), Shared("guests with network cards", 7, 6)),
    (("pin_guest",), Shared("guests with pins of network cards", 7, 6)),
    (("bare_zoo",), Shared("zoo without firmware", 9, NOTHING_TURN)),
    (("firmware_only",), Shared("firmware only", 2, 7)),
    (("spare",), Shared("devices in no machine", 1, 8)),
    (("free",), Shared("devices in no machine", 1, 8)),
    ((_DEVICES,), Shared("devices in no machine", 1, 8)),
    (("zoo",), Shared("zoo", 9, NOTHING_TURN)),
    (("cold",), Shared("firmware with a device in Python", 1, NOTHING_TURN)),
    (("guest_stage",), Shared("guest with devices in Python", 2.5, NOTHING_TURN)),
    (("onward",), Shared("host with devices in Python", 5, NOTHING_TURN)),
    (("host_stage",), Shared("host with devices in Python", 5, NOTHING_TURN)),
    (("arm_host",), Shared("host with Arm machines", 10, NOTHING_TURN)),
    (("narrow_host",), Shared("host with narrow addresses", 2, NOTHING_TURN)),
    (("shape_host",), Shared("host with named shapes", 12, NOTHING_TURN)),
    (("odd",), Shared("host with odd functions", 12, NOTHING_TURN)),
    (("nvme_stage",), Shared("host with an nvme family", 20, NOTHING_TURN)),
    (("stage",), Shared("host with virtual functions", 5, NOTHING_TURN)),
    (("igb",), Shared("host with virtual functions", 5, NOTHING_TURN)),
    (("shielded_guest",), Shared("guest with drivers in user space", 3, NOTHING_TURN)),
    (("bare_guest",), Shared("guest without IOMMU", 3, NOTHING_TURN)),
    (("four_cpus",), Shared("guest with four processors", 10, NOTHING_TURN)),
    (("boot",), Shared("guests in several modes", 25, NOTHING_TURN)),
    (("see",), Shared("guests with several options", 20, NOTHING_TURN)),
    (("firmware",), Shared("machine after its firmware", 6, NOTHING_TURN)),
    (("bare_host",), Shared("host without IOMMU", 1.5, NOTHING_TURN)),
    (("host_without_remapping",), Shared("host without remapping", 1.5, NOTHING_TURN)),
    (("corpus_seen",), Shared("corpus of shapes", 3, NOTHING_TURN)),
    (("paused",), Shared("paused machine", 0.6, NOTHING_TURN)),
)


def shared_by(item: pytest.Item) -> Shared | None:
    """Return what *item* shares with others, None if nothing.

    On a host that is not thrown away all tests with devices share a lane: its devices are
    there once, and a second worker that wants one would be refused (`harness.host.locks`).
    """
    names: Collection[str] = getattr(item, "fixturenames", ())
    found = next((shared for needs, shared in TABLE if set(needs) <= set(names)), None)
    settings = item.config.stash.get(SETTINGS, None)
    if found is None or _DEVICES not in names or settings is None or settings.host == "virtual":
        return found
    return Shared(found.name, found.seconds, found.turn, lane="devices")


def in_good_order(items: list[pytest.Item]) -> None:
    """Sort tests by their turn: what ends a shared machine comes after those that want it."""

    def turn(item: pytest.Item) -> int:
        shared = shared_by(item)
        return shared.turn if shared else NOTHING_TURN

    items.sort(key=turn)

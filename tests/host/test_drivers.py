"""Drivers of PCI functions: changed, put back, and never taken from the host itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import DeviceBusy, HostError
from harness.host import drivers
from harness.host.journal import Journal
from harness.model.pci import Bdf

NVME = Bdf.parse("0000:01:00.0")
NIC = Bdf.parse("0000:02:00.0")


@pytest.fixture
def journal() -> Journal:
    return Journal(None)


def test_function_changes_hands_and_comes_back(fake: Any, journal: Journal) -> None:
    change = drivers.bind(fake.system, journal, NVME, "vfio-pci")

    assert (fake.driver(NVME), fake.override(NVME)) == ("vfio-pci", "vfio-pci")
    assert journal.pending() == (change,)

    drivers.put_back(fake.system, journal, change)

    assert (fake.driver(NVME), fake.override(NVME)) == ("nvme", "")
    assert journal.pending() == ()


def test_function_without_driver_is_left_without_one_again(fake: Any, journal: Journal) -> None:
    (fake.device(NVME) / "driver").unlink()

    change = drivers.bind(fake.system, journal, NVME, "vfio-pci")
    drivers.put_back(fake.system, journal, change)

    assert fake.driver(NVME) == ""


def test_override_that_was_there_comes_back(fake: Any, journal: Journal) -> None:
    (fake.device(NVME) / "driver_override").write_text("nvme\n")

    change = drivers.bind(fake.system, journal, NVME, "vfio-pci")
    drivers.put_back(fake.system, journal, change)

    assert fake.override(NVME) == "nvme"


def test_module_is_loaded_only_if_its_driver_is_not_there(fake: Any, journal: Journal) -> None:
    drivers.bind(fake.system, journal, NVME, "vfio-pci")
    drivers.bind(fake.system, journal, NIC, "vfio-pci")

    assert (fake.root / "modprobed").read_text() == "vfio-pci\n"


def test_driver_that_does_not_take_the_function_is_told(fake: Any, journal: Journal) -> None:
    fake.add_driver("vfio-pci")
    fake.refuse("vfio-pci", NVME)

    with pytest.raises(HostError, match="vfio-pci did not take") as refused:
        drivers.bind(fake.system, journal, NVME, "vfio-pci")

    assert "driver now: none" in refused.value.seen
    assert len(journal.pending()) == 1  # it has lost its driver, that has to be put back


def test_function_that_is_not_there_is_told(fake: Any, journal: Journal) -> None:
    with pytest.raises(HostError, match="could not be given"):
        drivers.put_back(
            fake.system, journal, journal.driver(Bdf.parse("0000:09:00.0"), driver=None,
                                                 override=None)
        )  # fmt: skip


def test_groups_are_read(fake: Any) -> None:
    fake.add(Bdf.parse("0000:03:00.0"), "nvme", group=None)

    assert drivers.group_of(fake.system, NVME) == 5
    assert drivers.group_of(fake.system, Bdf.parse("0000:03:00.0")) is None


# -- in use by the host -------------------------------------------------------------------------


def test_function_that_nobody_uses_is_free(fake: Any) -> None:
    disk = fake.add_disk("nvme0n1", fake.device(NVME) / "nvme/nvme0/nvme0n1", "259:0")
    net(fake, "eth0", fake.device(NIC))

    assert disk.is_dir()
    assert drivers.why_in_use(fake.system, NVME) == ""
    assert drivers.why_in_use(fake.system, NIC) == ""


def test_function_that_has_gone_is_not_in_use(fake: Any) -> None:
    fake.add_disk("nvme0n1", fake.device(NVME) / "nvme/nvme0/nvme0n1", "259:0")
    fake.mount("nvme0n1")

    assert drivers.why_in_use(fake.system, Bdf.parse("0000:09:00.0")) == ""


def test_mounted_nvme_is_in_use(fake: Any, journal: Journal) -> None:
    fake.add_disk("nvme0n1", fake.device(NVME) / "nvme/nvme0/nvme0n1", "259:0")
    fake.mount("nvme0n1")

    with pytest.raises(DeviceBusy, match="in use by the host") as busy:
        drivers.bind(fake.system, journal, NVME, "vfio-pci")

    assert busy.value.seen == "block device nvme0n1 is mounted"
    assert fake.driver(NVME) == "nvme"
    assert journal.pending() == ()


def test_mounted_partition_makes_its_disk_in_use(fake: Any) -> None:
    disk = fake.add_disk("sda", fake.device(NVME) / "ata1/host0/target0/block/sda", "8:0")
    fake.add_disk("sda2", disk / "sda2", "8:2")
    fake.mount("sda2")

    assert drivers.why_in_use(fake.system, NVME) == "block device sda2 is mounted"


def test_root_that_mounts_do_not_name_is_found_by_its_number(fake: Any) -> None:
    fake.add_disk("nvme0n1", fake.device(NVME) / "nvme/nvme0/nvme0n1", "259:0")
    (fake.root / "proc/mounts").write_text("/dev/root / ext4 rw 0 0\n")
    (fake.root / "proc/self/mountinfo").write_text(
        "22 1 259:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
    )

    assert drivers.why_in_use(fake.system, NVME) == "nvme0n1 (259:0) is mounted"


def test_partition_in_a_volume_is_in_use(fake: Any) -> None:
    disk = fake.add_disk("nvme0n1", fake.device(NVME) / "nvme/nvme0/nvme0n1", "259:0")
    part = fake.add_disk("nvme0n1p3", disk / "nvme0n1p3", "259:3")
    (part / "holders/dm-0").touch()

    assert drivers.why_in_use(fake.system, NVME) == "block device nvme0n1p3 has holders"


def test_swap_is_in_use(fake: Any) -> None:
    fake.add_disk("nvme0n1", fake.device(NVME) / "nvme/nvme0/nvme0n1", "259:0")
    (fake.root / "proc/swaps").write_text("Filename Type\n/dev/nvme0n1 partition 1 0 -2\n")

    assert drivers.why_in_use(fake.system, NVME) == "block device nvme0n1 is swap"


def test_multipath_nvme_is_found_through_its_subsystem(fake: Any) -> None:
    subsystem = fake.root / "sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    fake.add_disk("nvme0n1", subsystem / "nvme0n1", "259:0")
    controller = fake.device(NVME) / "nvme/nvme0"
    controller.mkdir(parents=True)
    (subsystem / "nvme0").symlink_to(controller)
    fake.mount("nvme0n1")

    assert drivers.why_in_use(fake.system, NVME) == "block device nvme0n1 is mounted"
    assert drivers.why_in_use(fake.system, NIC) == ""


def test_network_with_an_address_is_in_use(fake: Any) -> None:
    net(fake, "eth0", fake.device(NIC))
    (fake.root / "ip-addr").write_text("2: eth0    inet 192.0.2.1/24 scope global eth0\n")

    assert drivers.why_in_use(fake.system, NIC) == "network eth0 has an address"
    assert drivers.why_in_use(fake.system, NVME) == ""


def test_network_in_a_bridge_is_in_use(fake: Any) -> None:
    net(fake, "eth0", fake.device(NIC) / "virtio0")
    (fake.root / "sys/class/net/eth0/master").symlink_to("../br0")

    assert drivers.why_in_use(fake.system, NIC) == "network eth0 belongs to br0"


def net(fake: Any, name: str, below: Path) -> None:
    place = below / "net" / name
    place.mkdir(parents=True)
    (fake.root / "sys/class/net" / name).symlink_to(place)

"""Restoring: what ended runs left changed is put back, what living runs use is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.commands import restore as command
from harness.errors import ConfigError, Unreachable
from harness.guest.transport import Transport
from harness.host import drivers
from harness.host.journal import Journal
from harness.host.locks import HostLocks
from harness.host.restore import restore_host
from harness.model.pci import Bdf

URL = "ssh://root@lab:22"
NVME = Bdf.parse("0000:01:00.0")
NIC = Bdf.parse("0000:02:00.0")


@pytest.fixture
def left_changed(fake: Any) -> Callable[[], None]:
    """Leave both functions with vfio-pci, as a killed run does."""

    def leave() -> None:
        journal = Journal.of_host(URL, boot="boot-1")
        for bdf, group in ((NVME, "IOMMU group 5"), (NIC, "IOMMU group 6")):
            drivers.bind(fake.system, journal, bdf, "vfio-pci", group=group)
        assert (fake.driver(NVME), fake.driver(NIC)) == ("vfio-pci", "vfio-pci")

    return leave


@pytest.fixture(autouse=True)
def reachable(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "connect", lambda url: fake.transport)


def test_drivers_of_a_killed_run_come_back(fake: Any, left_changed: Callable[[], None]) -> None:
    left_changed()

    report = command.restore()

    assert report.lines() == [
        f"{URL}: 0000:02:00.0: driver e1000e: put back",
        f"{URL}: 0000:01:00.0: driver nvme: put back",
    ]
    assert report.is_complete
    assert (fake.driver(NVME), fake.driver(NIC)) == ("nvme", "e1000e")
    assert fake.override(NVME) == ""
    assert command.restore().lines() == ["nothing is pending"]


def test_nothing_to_do_is_said_and_is_well() -> None:
    report = command.restore()

    assert report.lines() == ["nothing is pending"]
    assert report.is_complete


def test_only_the_host_that_is_asked_for_is_touched(
    fake: Any, left_changed: Callable[[], None]
) -> None:
    left_changed()

    assert command.restore("ssh://other").lines() == ["nothing is pending"]
    assert fake.driver(NVME) == "vfio-pci"
    assert len(command.restore("ssh://lab?key=/some/key").done) == 2


def test_devices_of_a_living_run_are_left_alone(
    fake: Any, left_changed: Callable[[], None]
) -> None:
    left_changed()
    living = HostLocks.of_host(URL, run="/results/living")
    living.take("IOMMU group 5", what=str(NVME))

    report = command.restore()

    assert not report.is_complete
    assert "left alone" in report.lines()[1]
    assert "/results/living" in report.lines()[1]
    assert (fake.driver(NVME), fake.driver(NIC)) == ("vfio-pci", "e1000e")
    living.release()
    assert command.restore().is_complete


def test_reboot_has_put_everything_back(fake: Any, left_changed: Callable[[], None]) -> None:
    left_changed()
    fake.reboot("boot-2")
    (fake.root / "modprobed").unlink()

    report = command.restore()

    assert report.is_complete
    assert all("gone with a reboot" in line for line in report.lines())
    assert fake.driver(NVME) == "vfio-pci"  # it was not touched
    assert command.restore().lines() == ["nothing is pending"]


def test_one_that_cannot_be_put_back_does_not_keep_the_others(
    fake: Any, left_changed: Callable[[], None]
) -> None:
    left_changed()
    fake.refuse("e1000e", NIC)

    report = command.restore()

    assert not report.is_complete
    assert "not put back: e1000e did not take" in report.lines()[0]
    assert fake.driver(NVME) == "nvme"
    (fake.pci / "drivers/e1000e/.refuses").write_text("")
    assert command.restore().is_complete
    assert fake.driver(NIC) == "e1000e"


def test_host_that_is_out_of_reach_keeps_its_entries(
    left_changed: Callable[[], None],
) -> None:
    left_changed()

    def refuse(url: str) -> Transport:
        raise Unreachable("no answer")

    done = restore_host(Journal.of_host(URL), connect=refuse)

    assert [str(one) for one in done] == [f"{URL}: not reached: no answer"]
    assert not done[0].is_back
    assert len(Journal.of_host(URL).pending()) == 2


def test_entries_can_be_forgotten_without_the_host(
    fake: Any, left_changed: Callable[[], None], state: Path
) -> None:
    left_changed()

    assert len(command.restore(URL, drop=True).done) == 2
    assert command.restore().lines() == ["nothing is pending"]
    assert fake.driver(NVME) == "vfio-pci"
    with pytest.raises(ConfigError, match="--forget needs --host"):
        command.restore(drop=True)

"""The AP bus of a host that outlives us, made of files here."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ap.lease import largest_rectangle, parse_free, take_bus
from harness.errors import CommandFailed, DeviceBusy, HostError, MissingDevice
from harness.guest.local import LocalTransport
from harness.guest.system import System
from harness.guest.transport import Command, Completed, command_text
from harness.host.journal import Journal
from harness.host.locks import HostLocks
from harness.host.restore import restore_host
from harness.model.ap.id import Apqn

UUIDS = ("00000001-7ac3-4f1d-9a52-6f3d2f6c0a11", "00000002-7ac3-4f1d-9a52-6f3d2f6c0a11")
MASK = "0xf9" + "f" * 62
URL = "ssh://root@lpar:22"


class Lpar(LocalTransport):
    """A mainframe made of files: ``/sys`` lies below ``root``."""

    name = "lpar"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bus = root / "sys/bus/ap"
        self.matrix = root / "sys/devices/vfio_ap/matrix"
        self.matrix.mkdir(parents=True)
        (self.bus / "drivers/vfio_ap").mkdir(parents=True)
        (root / "proc/sys/kernel/random").mkdir(parents=True)
        (root / "proc/sys/kernel/random/boot_id").write_text("boot-1\n")
        self.set_masks(MASK, "0x" + "f" * 64)
        for name, status in (
            ("05.0004", "unassigned"),
            ("05.00ab", "in use"),
            ("06.0004", "assigned"),
            ("06.00ab", "unassigned"),
        ):
            self.add_queue(name, status)

    def set_masks(self, apmask: str, aqmask: str) -> None:
        (self.bus / "apmask").write_text(apmask + "\n")
        (self.bus / "aqmask").write_text(aqmask + "\n")

    def add_queue(self, name: str, status: str) -> None:
        queue = self.bus / "drivers/vfio_ap" / name
        queue.mkdir()
        (queue / "status").write_text(status + "\n")

    def add_device(self, uuid: str) -> Path:
        (self.matrix / uuid).mkdir()
        (self.matrix / uuid / "remove").touch()
        return self.matrix / uuid / "remove"

    def _here(self, text: str) -> str:
        return re.sub(r"(?<![\w.])/(?=(?:sys|proc)/)", f"{self.root}/", text)

    def run(
        self, command: Command, *, timeout: float = 60, stdin: bytes = b"", check: bool = True
    ) -> Completed:
        return super().run(
            self._here(command_text(command)), timeout=timeout, stdin=stdin, check=check
        )

    def write(self, path: str, content: bytes) -> None:
        super().write(self._here(path), content)


@pytest.fixture
def lpar(tmp_path: Path) -> Lpar:
    return Lpar(tmp_path / "lpar")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal", url=URL, boot="boot-1")


def locks(tmp_path: Path) -> HostLocks:
    return HostLocks(tmp_path / "locks", run="results/x")


def test_only_queues_that_nobody_has_are_free(
    lpar: Lpar, journal: Journal, tmp_path: Path
) -> None:
    lease = take_bus(System(lpar, level="L1"), journal, locks(tmp_path), uuids=UUIDS)

    assert [str(queue) for queue in lease.free] == ["05.0004", "06.00ab"]
    assert lease.rectangle == ((5,), (4,))


def test_masks_come_back_after_our_devices_went(
    lpar: Lpar, journal: Journal, tmp_path: Path
) -> None:
    lease = take_bus(System(lpar, level="L1"), journal, locks(tmp_path), uuids=UUIDS)
    lpar.set_masks("0x0", "0x0")
    remove = lpar.add_device(UUIDS[1])
    theirs = lpar.add_device("cef03c3c-903d-4ecc-9a83-40694cb8aee4")

    lease.end()

    assert (lpar.bus / "apmask").read_text() == MASK
    assert (remove.read_text(), theirs.read_text()) == ("1", "")
    assert journal.pending() == ()


def test_what_a_killed_run_changed_is_put_back_by_restore(
    lpar: Lpar, journal: Journal, tmp_path: Path
) -> None:
    held = locks(tmp_path)
    take_bus(System(lpar, level="L1"), journal, held, uuids=UUIDS)
    lpar.set_masks("0x0", "0x0")
    held.release()  # as the end of a process does

    done = restore_host(
        Journal(tmp_path / "journal"), connect=lambda url: lpar, directory=tmp_path / "locks"
    )

    assert all(one.is_back for one in done), done
    assert (lpar.bus / "apmask").read_text() == MASK
    assert Journal(tmp_path / "journal").pending() == ()


def test_what_a_killed_run_found_is_what_comes_back(
    lpar: Lpar, journal: Journal, tmp_path: Path
) -> None:
    held = locks(tmp_path)
    take_bus(System(lpar, level="L1"), journal, held, uuids=UUIDS)
    lpar.set_masks("0x0", "0x0")
    lpar.add_device(UUIDS[0])
    held.release()

    later = Journal(tmp_path / "journal", url=URL, boot="boot-1")
    take_bus(System(lpar, level="L1"), later, locks(tmp_path), uuids=UUIDS).end()

    assert (lpar.bus / "apmask").read_text() == MASK
    assert (lpar.matrix / UUIDS[0] / "remove").read_text() == "1"


def test_a_reboot_leaves_nothing_to_put_back(lpar: Lpar, journal: Journal, tmp_path: Path) -> None:
    held = locks(tmp_path)
    take_bus(System(lpar, level="L1"), journal, held, uuids=UUIDS)
    held.release()
    lpar.set_masks("0x0", "0x0")
    (lpar.root / "proc/sys/kernel/random/boot_id").write_text("boot-2\n")

    restore_host(
        Journal(tmp_path / "journal"), connect=lambda url: lpar, directory=tmp_path / "locks"
    )

    assert (lpar.bus / "apmask").read_text() == "0x0\n"


def test_another_run_that_has_the_bus_keeps_it(
    lpar: Lpar, journal: Journal, tmp_path: Path
) -> None:
    system = System(lpar, level="L1")
    lease = take_bus(system, journal, locks(tmp_path), uuids=UUIDS)
    with pytest.raises(DeviceBusy, match="the AP bus of lpar"):
        take_bus(system, Journal(tmp_path / "journal"), locks(tmp_path), uuids=UUIDS)
    lease.end()


def test_a_host_without_a_free_queue_is_left_alone(
    lpar: Lpar, journal: Journal, tmp_path: Path
) -> None:
    for name in ("05.0004", "06.00ab"):
        (lpar.bus / "drivers/vfio_ap" / name / "status").write_text("assigned\n")

    with pytest.raises(MissingDevice, match=r"no AP queue for guests(.|\n)*echo -5"):
        take_bus(System(lpar, level="L1"), journal, locks(tmp_path), uuids=UUIDS)
    assert journal.pending() == ()
    locks(tmp_path).take("AP bus", what="it was let go of")


def test_a_device_of_somebody_with_a_name_of_ours_is_not_taken(
    lpar: Lpar, journal: Journal, tmp_path: Path
) -> None:
    lpar.add_device(UUIDS[0])

    with pytest.raises(HostError, match=UUIDS[0]):
        take_bus(System(lpar, level="L1"), journal, locks(tmp_path), uuids=UUIDS)
    assert journal.pending() == ()


def test_what_cannot_be_put_back_stays_in_the_journal(
    lpar: Lpar, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = take_bus(System(lpar, level="L1"), journal, locks(tmp_path), uuids=UUIDS)

    def refuse(self: Lpar, path: str, content: bytes) -> None:
        raise CommandFailed(f"write {path}", exit_status=16, stdout="", stderr="busy", where="x")

    monkeypatch.setattr(Lpar, "write", refuse)
    with pytest.raises(HostError, match=r"2 changes(.|\n)*trapline restore"):
        lease.end()
    assert len(journal.pending()) == 2


def test_lines_of_queues_are_read() -> None:
    text = "05.0004 unassigned\n05.00ab in use\n06.0004 assigned\n04.00ff unassigned\n"

    assert [str(queue) for queue in parse_free(text)] == ["04.00ff", "05.0004"]
    assert parse_free("") == ()


apqns = st.builds(Apqn, st.integers(0, 4), st.integers(0, 4))


@given(st.frozensets(apqns, max_size=16))
def test_the_rectangle_is_free_and_none_is_larger(queues: frozenset[Apqn]) -> None:
    adapters, domains = largest_rectangle(queues)
    assert all(Apqn(a, d) in queues for a in adapters for d in domains)

    largest = 0
    for count in range(1, 6):
        for choice in itertools.combinations(range(5), count):
            shared = sum(all(Apqn(a, d) in queues for a in choice) for d in range(5))
            largest = max(largest, count * shared)
    assert len(adapters) * len(domains) == largest

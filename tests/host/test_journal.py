"""The journal: what was there is on disk before it is changed, and is put back once."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from harness.host.journal import Journal, journals
from harness.model.pci import Bdf

A, B = Bdf.parse("0000:01:00.0"), Bdf.parse("0000:02:00.0")


def test_change_is_on_disk_when_it_is_returned(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", url="ssh://root@lab:22?key=/k", boot="b1")

    change = journal.driver(A, driver="nvme", override=None, group="IOMMU group 5")

    head, line = map(json.loads, (tmp_path / "j").read_text().splitlines())
    assert head == {"host": "ssh://root@lab:22?key=/k"}
    assert (line["bdf"], line["driver"], line["override"]) == (str(A), "nvme", "")
    again = Journal(tmp_path / "j")
    assert again.pending() == (change,)
    assert again.url == "ssh://root@lab:22?key=/k"


def test_newest_change_is_put_back_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    first = journal.driver(A, driver="nvme", override=None)
    second = journal.driver(A, driver="vfio-pci", override="vfio-pci")

    assert journal.pending() == (second, first)
    journal.undone(second)
    assert Journal(tmp_path / "j").pending() == (first,)


def test_changes_of_another_run_are_seen_and_are_not_ours(tmp_path: Path) -> None:
    one, two = Journal(tmp_path / "j"), Journal(tmp_path / "j")

    first = one.driver(A, driver="nvme", override=None)
    second = two.driver(B, driver="e1000e", override=None)

    assert first.number != second.number
    assert two.pending() == (second, first)
    assert two.ours() == (second,)
    assert one.ours() == (first,)


def test_change_of_a_dead_run_is_taken_over(tmp_path: Path) -> None:
    dead = Journal(tmp_path / "j", boot="b1")
    left = dead.driver(A, driver="nvme", override=None)

    later = Journal(tmp_path / "j", boot="b1")
    change = later.driver(A, driver="vfio-pci", override="vfio-pci")

    assert change == left
    assert later.ours() == (left,)


def test_what_a_dead_run_changed_twice_is_put_back_to_what_it_found_first(tmp_path: Path) -> None:
    dead = Journal(tmp_path / "j", boot="b1")
    first = dead.driver(A, driver="nvme", override=None)
    dead.driver(A, driver="igb", override=None)
    other = dead.driver(B, driver="e1000e", override=None)

    later = Journal(tmp_path / "j", boot="b1")
    change = later.driver(A, driver="vfio-pci", override="vfio-pci")

    assert change == first
    assert later.pending() == (other, first)
    assert later.ours() == (first,)


def test_change_from_before_a_reboot_is_not_taken_over(tmp_path: Path) -> None:
    Journal(tmp_path / "j", boot="b1").driver(A, driver="nvme", override=None)

    change = Journal(tmp_path / "j", boot="b2").driver(A, driver="e1000e", override=None)

    assert (change.driver, change.boot) == ("e1000e", "b2")


def test_second_change_of_the_same_run_is_one_of_its_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.driver(A, driver="nvme", override=None)

    inner = journal.driver(A, driver="vfio-pci", override="vfio-pci")

    assert inner.driver == "vfio-pci"


def test_journal_without_file_remembers_too() -> None:
    journal = Journal(None)
    change = journal.driver(A, driver=None, override=None)

    assert journal.pending() == journal.ours() == (change,)
    journal.undone(change)
    assert journal.pending() == ()


@given(cut=st.integers(min_value=1, max_value=300))
def test_line_that_a_crash_cut_short_harms_no_other(cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "j"
        first = Journal(path).driver(A, driver="nvme", override=None)
        whole = path.read_bytes()
        Journal(path).driver(B, driver="e1000e", override=None)
        second = path.read_bytes()[len(whole) :]
        path.write_bytes(whole + second[: min(cut, len(second) - 2)])

        journal = Journal(path)
        assert journal.pending() == (first,)
        third = journal.driver(B, driver="e1000e", override=None)

        assert Journal(path).pending() == (third, first)


def test_journals_of_hosts_are_found() -> None:
    assert journals() == ()
    Journal.of_host("ssh://root@lab:22").driver(A, driver=None, override=None)
    Journal.of_host("local").driver(A, driver=None, override=None)

    assert [Journal(path).url for path in journals()] == ["local", "ssh://root@lab:22"]


def test_entries_without_group_and_boot_are_read(tmp_path: Path) -> None:
    (tmp_path / "j").write_text(
        '{"time": 1.0, "number": 0, "bdf": "0000:01:00.0", "driver": "nvme", "override": ""}\n'
    )

    (change,) = Journal(tmp_path / "j").pending()

    assert (change.group, change.boot) == ("", "")


def test_an_attribute_is_written_down_with_what_puts_it_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", url="ssh://lab", boot="b1")
    mask = journal.attribute("/sys/bus/ap/apmask", "0xff", group="AP bus")
    driver = journal.driver(A, driver="nvme", override=None)

    again = Journal(tmp_path / "j", boot="b1")
    assert again.pending() == (driver, mask)
    assert again.attribute("/sys/bus/ap/apmask", "0x00") == mask, "a dead run's is taken over"
    assert again.attribute("/sys/bus/ap/aqmask", "0x00") != mask
    again.undone(mask)
    assert mask not in Journal(tmp_path / "j").pending()

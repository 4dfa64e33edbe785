"""Windows of trace events, with a QMP that only remembers and a place that is one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from harness.errors import QmpFailed
from harness.machine.place import LocalPlace
from harness.machine.qmp import Qmp
from harness.machine.traces import TraceWindow

READ = "memory_region_ops_read cpu 0 mr 0x55 addr 0xfe value 0x0 size 4 name 'edu-mmio'\n"
OTHER = "vfio_region_read  (0000:00:0c.0:region0+0x0, 4) = 0x10000ed\n"


class Switches:
    """Remembers which events are on; knows only *known*."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.on: set[str] = set()
        self.silent = False

    def execute(self, command: str, arguments: Mapping[str, object]) -> None:
        assert command == "trace-event-set-state"
        name = str(arguments["name"])
        if self.silent:
            raise QmpFailed("no answer")
        if name not in self.known:
            raise QmpFailed("no", error_class="GenericError", description="unknown event")
        (self.on.add if arguments["enable"] else self.on.discard)(name)


@pytest.fixture
def switches() -> Switches:
    return Switches("memory_region_ops_read", "vfio_region_read")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "trace.log"
    path.write_text(READ)
    return path


def window(switches: Switches, log: Path, *events: str) -> TraceWindow:
    return TraceWindow(cast(Qmp, switches), LocalPlace(), str(log), events)


def add(log: Path, text: str) -> None:
    with log.open("a") as stream:
        stream.write(text)


def test_only_what_came_inside_the_window_counts(switches: Switches, log: Path) -> None:
    with window(switches, log, "memory_region_ops_read", "vfio_region_read") as seen:
        assert switches.on == {"memory_region_ops_read", "vfio_region_read"}
        add(log, READ * 3 + OTHER)
    add(log, READ)

    assert seen.counts() == {"memory_region_ops_read": 3, "vfio_region_read": 1}
    assert seen.count("memory_region_ops_read", "edu-mmio") == 3
    assert seen.count("memory_region_ops_read", "other") == 0
    assert switches.on == set()


def test_what_came_so_far_can_be_asked_while_the_window_is_open(
    switches: Switches, log: Path
) -> None:
    with window(switches, log, "memory_region_ops_read") as seen:
        assert seen.so_far() == ()
        add(log, READ)
        assert len(seen.so_far()) == 1


def test_events_that_this_qemu_does_not_know_are_listed(switches: Switches, log: Path) -> None:
    with window(switches, log, "vfio_region_read", "vfio_new_one") as seen:
        add(log, OTHER)

    assert seen.unknown == ("vfio_new_one",)
    assert seen.counts() == {"vfio_region_read": 1}


def test_no_answer_is_not_taken_for_an_unknown_event(switches: Switches, log: Path) -> None:
    switches.silent = True

    with pytest.raises(QmpFailed, match="no answer"), window(switches, log, "vfio_region_read"):
        pass


def test_a_test_that_fails_inside_leaves_no_event_on(switches: Switches, log: Path) -> None:
    with pytest.raises(AssertionError), window(switches, log, "vfio_region_read"):
        raise AssertionError

    assert switches.on == set()


def test_the_first_error_counts_when_the_machine_is_gone(switches: Switches, log: Path) -> None:
    with pytest.raises(ZeroDivisionError), window(switches, log, "vfio_region_read"):
        switches.silent = True
        raise ZeroDivisionError


def test_a_window_without_a_log_is_empty(switches: Switches, tmp_path: Path) -> None:
    with window(switches, tmp_path / "none", "vfio_region_read") as seen:
        pass

    assert seen.events == ()

"""The log of trapped accesses: in order, counted, bounded."""

from __future__ import annotations

from harness.device.access_log import Access, AccessLog


def test_accesses_are_kept_in_order() -> None:
    log = AccessLog()
    log.add(0, 4, 4, "read")
    log.add(2, 0, 1, "write")

    assert list(log) == [Access(0, 4, 4, "read"), Access(2, 0, 1, "write")]


def test_they_are_counted_by_what_is_asked() -> None:
    log = AccessLog()
    for offset in (0, 4, 4, 0x1000):
        log.add(0, offset, 4, "read")
    log.add(1, 4, 2, "write")

    assert log.count() == 5
    assert log.count(0) == 4
    assert log.count(0, offset=4) == 2
    assert log.count(width=2) == 1
    assert log.count(operation="write") == 1
    assert log.count(0, inside=range(0x1000)) == 3


def test_old_ones_are_dropped_but_counted() -> None:
    log = AccessLog(kept=10, distinct=5)
    for offset in range(100):
        log.add(0, offset, 1, "read")

    assert len(log) == 10
    assert len(log.counts) == 5
    assert log.total == 100


def test_it_can_be_emptied() -> None:
    log = AccessLog(distinct=1)
    log.add(0, 0, 1, "read")
    log.add(0, 1, 1, "read")
    log.clear()

    assert (log.total, len(log), list(log)) == (0, 0, [])

"""The list of secondary controllers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.guest.nvme import Secondary, parse_secondaries

numbers = st.integers(0, 0xFFFF)
secondaries = st.builds(Secondary, numbers, st.booleans(), numbers, numbers)


def raw(*entries: Secondary) -> bytes:
    """Return a list as NVMe 1.4, figures 249 and 250, lay it out."""
    said = bytes([len(entries)]) + bytes(31)
    for one in entries:
        said += one.number.to_bytes(2, "little") + bytes(2) + bytes([one.online]) + bytes(5)
        said += one.queues.to_bytes(2, "little") + one.vectors.to_bytes(2, "little") + bytes(18)
    return said


@given(st.lists(secondaries, max_size=9))
def test_a_list_is_read_as_it_was_made(entries: list[Secondary]) -> None:
    assert parse_secondaries(raw(*entries) + bytes(64)) == tuple(entries)


def test_a_list_that_is_cut_off_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted"):
        parse_secondaries(raw(Secondary(1, True, 2, 1))[:40])
    with pytest.raises(ValueError, match="wanted"):
        parse_secondaries(b"")

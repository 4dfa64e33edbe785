"""Putting one change of a host back, of whatever kind it is."""

from __future__ import annotations

from harness.guest.system import System
from harness.host import drivers
from harness.host.journal import AttributeChange, Change, Journal


def undo(system: System, journal: Journal, change: Change) -> None:
    """Put *change* back and cross it out.

    :raise HarnessError: the host does not do it; it stays in the journal.
    """
    if isinstance(change, AttributeChange):
        # What is not there any more needs nobody to remove it.
        if system.exists(change.path):
            system.write_text(change.path, change.text)
        journal.undone(change)
    else:
        drivers.put_back(system, journal, change)

"""Putting back what runs that have ended left changed on hosts that outlive them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DeviceBusy, HarnessError
from harness.guest.system import System
from harness.guest.transport import Transport
from harness.host.journal import AttributeChange, Change, Journal
from harness.host.locks import HostLocks
from harness.host.physical import boot_id, canonical
from harness.host.undo import undo


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of one change."""

    host: str
    change: Change | None
    """None where the host itself could not be reached."""
    text: str
    is_back: bool

    def __str__(self) -> str:
        return f"{self.host}: {self.text}"


def restore_host(
    journal: Journal, *, connect: Callable[[str], Transport], directory: Path | None = None
) -> list[Restored]:
    """Put back everything pending in *journal*, newest first.

    What a living run has taken is left to it; what a reboot has undone is only crossed out.

    :param connect: reaches the host that the journal names.
    :param directory: where the lock files of the host are, if not in the state directory.
    """
    if not journal.pending():
        return []
    name = canonical(journal.url)
    locks = (
        HostLocks(directory, run="trapline restore")
        if directory
        else HostLocks.of_host(name, run="trapline restore")
    )
    try:
        transport = connect(journal.url)
    except HarnessError as error:
        return [Restored(name, None, f"not reached: {error}", False)]
    try:
        journal.boot = boot_id(transport)
        system = System(transport, level="L0")
        return [_restore(system, journal, locks, name, change) for change in journal.pending()]
    except HarnessError as error:
        return [Restored(name, None, str(error), False)]
    finally:
        locks.release()
        transport.close()


def _restore(
    system: System, journal: Journal, locks: HostLocks, name: str, change: Change
) -> Restored:
    if change.boot and change.boot != journal.boot:
        journal.undone(change)
        return Restored(name, change, f"{change}: gone with a reboot of the host", True)
    try:
        if change.group:
            what = change.path if isinstance(change, AttributeChange) else change.bdf
            locks.take(change.group, what=what)
        undo(system, journal, change)
    except DeviceBusy as error:
        return Restored(name, change, f"{change}: left alone, {error.seen} has it", False)
    except HarnessError as error:
        return Restored(name, change, f"{change}: not put back: {error}", False)
    return Restored(name, change, f"{change}: put back", True)


def forget(journal: Journal) -> list[Restored]:
    """Cross out everything pending without touching the host."""
    dropped = []
    for change in journal.pending():
        journal.undone(change)
        dropped.append(Restored(canonical(journal.url), change, f"{change}: forgotten", True))
    return dropped

"""The AP bus of a host that outlives us: what may be touched, and that it comes back.

Only queues that were given up for guests already, and that no guest has, are touched: those
bound to vfio_ap and ``unassigned``. No other is ever taken from the host's drivers: who uses
them cannot be seen from outside. Masks and matrix devices are written down before anything is
changed (`harness.host.journal`), so that they come back also after ``kill -9``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.ap.bus import BUS, VFIO_AP
from harness.ap.matrix_device import MATRIX
from harness.errors import HarnessError, HostError, MissingDevice
from harness.guest.system import System
from harness.host.journal import AttributeChange, Journal
from harness.host.locks import HostLocks
from harness.host.undo import undo
from harness.model.ap.id import Apqn

LOCK = "AP bus"
_MASKS = ("apmask", "aqmask")
_QUEUES = (
    f"cd {BUS}/drivers/{VFIO_AP} 2>/dev/null || exit 0; for q in ??.????; do"
    ' [ -e "$q/status" ] && echo "$q $(cat "$q/status")"; done; exit 0'
)


@dataclass(frozen=True, slots=True)
class Lease:
    """What a run holds of the AP bus.

    :param free: queues that it may give to guests.
    """

    system: System
    journal: Journal
    locks: HostLocks
    free: tuple[Apqn, ...]

    @property
    def rectangle(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Adapters and domains of which every queue is free: the largest such set.

        A matrix device has every domain of every adapter of its own.
        """
        return largest_rectangle(self.free)

    def end(self) -> None:
        """Put masks back, remove matrix devices of ours, let others have the bus.

        :raise HostError: something could not be put back; it stays in the journal.
        """
        stuck: list[str] = []
        try:
            for change in self.journal.ours():
                if not isinstance(change, AttributeChange):
                    continue
                try:
                    undo(self.system, self.journal, change)
                except HarnessError as error:
                    stuck.append(f"{change}: {error}")
        finally:
            self.locks.release()
        if stuck:
            raise HostError(
                f"{len(stuck)} changes of the AP bus of {self.system.name} are not put back",
                seen="\n".join(stuck),
                evidence=self.journal.path,
                hint="trapline restore tries again",
            )


def take_bus(system: System, journal: Journal, locks: HostLocks, *, uuids: Iterable[str]) -> Lease:
    """Take the AP bus of *system* for this run.

    :param uuids: names of the matrix devices that the run may make.
    :raise DeviceBusy: another run has it.
    :raise MissingDevice: no queue is free, or vfio_ap is not there.
    :raise HostError: a device of one of these names exists and nobody wrote down that it is ours.
    """
    locks.take(LOCK, what=f"the AP bus of {system.name}")
    try:
        free = parse_free(system.run(_QUEUES).stdout)
        if not free:
            raise MissingDevice(
                f"{system.name} has no AP queue for guests that no guest has",
                hint=f"modprobe vfio_ap, and give up an adapter: echo -5 > {BUS}/apmask",
            )
        names = tuple(uuids)
        removals = [f"{MATRIX}/{uuid}/remove" for uuid in names]
        ours = {change.path for change in journal.pending() if isinstance(change, AttributeChange)}
        strange = [path for path in removals if path not in ours and system.exists(path)]
        if strange:
            raise HostError(
                "there are matrix devices with the names that this run would give",
                seen="\n".join(strange),
                hint="remove them if they are of no use",
            )
        # Put back in the opposite order: a mask in use by a device cannot be written.
        for name in _MASKS:
            path = f"{BUS}/{name}"
            journal.attribute(path, system.read_text(path).strip(), group=LOCK)
        for path in removals:
            journal.attribute(path, "1", group=LOCK)
    except BaseException:
        locks.release()
        raise
    return Lease(system, journal, locks, free)


def parse_free(text: str) -> tuple[Apqn, ...]:
    """Read lines ``05.0004 unassigned``; return the queues that no matrix device has (pure)."""
    words = (line.split(maxsplit=1) for line in text.splitlines())
    return tuple(sorted(Apqn.parse(one[0]) for one in words if one[1:] == ["unassigned"]))


def largest_rectangle(
    queues: Iterable[Apqn],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return adapters and domains of which every queue is in *queues*, the most (pure)."""
    domains_of: dict[int, frozenset[int]] = {}
    for queue in queues:
        domains_of[queue.adapter] = domains_of.get(queue.adapter, frozenset()) | {queue.domain}
    # The domains of any choice of adapters are an intersection of theirs.
    shared = set(domains_of.values())
    while more := {one & other for one in shared for other in domains_of.values()} - shared:
        shared |= more
    best: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    for domains in sorted(shared, key=sorted):
        adapters = [number for number, has in domains_of.items() if domains <= has]
        if len(adapters) * len(domains) > len(best[0]) * len(best[1]):
            best = tuple(sorted(adapters)), tuple(sorted(domains))
    return best

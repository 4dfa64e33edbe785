"""``trapline state``: see, check and remove saved states of virtual hosts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from harness.commands.images import human_age, human_size, select
from harness.errors import ConfigError, ImageError
from harness.images.cache import Artifact, Store, remove_tree
from harness.lab.states import bytes_of, last_use, states_store
from harness.step import step


@dataclass(frozen=True, slots=True)
class StateRow:
    """One saved state, for people and for JSON."""

    name: str
    """``host``, or ``nested``: with a guest up in it."""
    key: str
    size: int
    """Bytes on the disk; memory that was never touched takes none."""
    made: float
    """Seconds since the epoch, 0 if the record is damaged."""
    used: float
    """When it was last gone on with."""
    seconds: float
    """How long making it took."""
    about: dict[str, str]
    """What it is of."""
    path: str


def rows(store: Store | None = None) -> list[StateRow]:
    """Return every state."""
    return [_row(artifact) for artifact in (store or states_store()).entries()]


def as_json(found: Sequence[StateRow]) -> list[dict[str, object]]:
    """Return rows for `json`."""
    return [asdict(row) for row in found]


def as_lines(found: Sequence[StateRow], *, now: float | None = None) -> list[str]:
    """Return rows as lines in columns, for people and for grep."""
    now = time.time() if now is None else now
    lines = [f"{'name':<7} {'key':<20} {'on disk':>9}  {'made':>7}  {'used':>7}  of"]
    for row in found:
        made = human_age(now - row.made) if row.made else "damaged"
        of = ", ".join(f"{name} {value}" for name, value in row.about.items())
        lines.append(
            f"{row.name:<7} {row.key:<20} {human_size(row.size):>9}  {made:>7}  "
            f"{human_age(now - row.used):>7}  {of}"
        )
    return lines


def verify(names: Sequence[str] = (), store: Store | None = None) -> list[tuple[StateRow, str]]:
    """Compute every hash of the named states (all without names); pairs of row and problem.

    Nothing is changed: a damaged state is made again when it is next needed.
    """
    store = store or states_store()
    found = []
    for artifact in _selected(store, names):
        row = _row(artifact)
        with step("check %s %s (%s)", row.name, row.key, human_size(row.size)):
            found.append((row, "; ".join(store.check(artifact, full=True))))
    return found


def remove(
    names: Sequence[str] = (), *, everything: bool = False, store: Store | None = None
) -> list[StateRow]:
    """Remove the named states and return what they were; running hosts are not disturbed.

    :param everything: remove all states.
    :raise ConfigError: no names, or one that names nothing.
    """
    if not names and not everything:
        raise ConfigError(
            "nothing was named", hint="trapline state rm NAME… or trapline state rm --all"
        )
    store = store or states_store()
    doomed = _selected(store, () if everything else names)
    removed = [_row(artifact) for artifact in doomed]
    for artifact in doomed:
        store.remove(artifact)
    if everything:
        remove_tree(store.root / "damaged")
    return removed


def _selected(store: Store, names: Sequence[str]) -> list[Artifact]:
    return select(store, names, what="saved state", lister="trapline state list")


def _row(artifact: Artifact) -> StateRow:
    size, used, path = bytes_of(artifact), last_use(artifact), str(artifact.dir)
    try:
        record = artifact.manifest()
    except ImageError:
        return StateRow(artifact.name, artifact.key, size, 0, used, 0, {}, path)
    return StateRow(
        artifact.name, artifact.key, size, record.built, used, record.seconds, record.inputs, path
    )

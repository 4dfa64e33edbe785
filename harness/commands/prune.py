"""``trapline images prune``: remove Python environments that nobody will use again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from harness.commands.images import human_age, human_size
from harness.errors import ConfigError
from harness.images.environments import Environment, Judged, environments, prune


def judged(unused: float, *, dry_run: bool = False) -> list[Judged]:
    """Remove them, or only say which would go.

    :param unused: days without use after which one goes.
    :raise ConfigError: *unused* is negative.
    :raise ImageError: they cannot be removed now.
    """
    if not unused >= 0:
        raise ConfigError(f"not a number of days: {unused:g}", hint="give 0 or more")
    return list(prune(unused, dry_run=dry_run))


def as_json(found: Iterable[Judged]) -> list[dict[str, object]]:
    """Return them for `json`: ``size`` in bytes, ``used`` in seconds since the epoch."""
    return [
        {
            **asdict(one.environment),
            "path": str(one.environment.path),
            "checkout": one.environment.checkout and str(one.environment.checkout),
            "goes": one.goes,
            "why": one.why,
        }
        for one in found
    ]


def as_lines(
    found: Sequence[Judged], *, dry_run: bool = False, now: float | None = None
) -> list[str]:
    """Return them as lines in columns, the sum last."""
    if not found:
        return ["no Python environments; ./trapline makes one in the cache when it first starts"]
    now = time.time() if now is None else now
    verb = "would go" if dry_run else "removed"
    lines = [f"{'':<8}  {'name':<21} {'size':>9}  {'used':>7}  why, and of which checkout"]
    for one in found:
        own = one.environment
        used = human_age(now - own.used) if own.used else "never"
        lines.append(
            f"{verb if one.goes else 'stays':<8}  {own.name:<21} {human_size(own.size):>9}  "
            f"{used:>7}  {one.why}: {own.checkout or 'unknown'}"
        )
    gone = [one.environment for one in found if one.goes]
    kept = [one.environment for one in found if not one.goes]
    lines.append(f"{verb}: {_sum(gone)}; stays: {_sum(kept)}")
    return lines


def hint_line() -> str:
    """Return one line on what is there, '' if nothing is."""
    found = environments()
    return f"{_sum(found)}: trapline images prune --dry-run lists them" if found else ""


def _sum(found: Sequence[Environment]) -> str:
    size = human_size(sum(one.size for one in found))
    return f"{len(found)} Python environment{'' if len(found) == 1 else 's'} ({size})"

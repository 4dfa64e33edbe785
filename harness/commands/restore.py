"""``trapline restore``: put back what ended runs left changed on physical hosts."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import ConfigError
from harness.host.journal import Journal, journals
from harness.host.physical import canonical, connect
from harness.host.restore import Restored, forget, restore_host


@dataclass(frozen=True, slots=True)
class Report:
    """What was done."""

    done: tuple[Restored, ...]

    @property
    def is_complete(self) -> bool:
        """Say whether nothing is pending any more."""
        return all(one.is_back for one in self.done)

    def lines(self) -> list[str]:
        """Return one line for each change."""
        return [str(one) for one in self.done] or ["nothing is pending"]


def restore(url: str | None = None, *, drop: bool = False) -> Report:
    """Put back what is pending on the host *url*, or on all.

    :param drop: touch no host, only forget what is pending on *url*.
    :raise ConfigError: *drop* without a host, or *url* names none.
    """
    if drop and url is None:
        raise ConfigError("--forget needs --host", hint="trapline restore lists the hosts")
    if url is None:
        known = [Journal(path) for path in journals()]
    else:
        known = [Journal.of_host(canonical(url), url=url)]
    done: list[Restored] = []
    for journal in known:
        done += forget(journal) if drop else restore_host(journal, connect=connect)
    return Report(tuple(done))

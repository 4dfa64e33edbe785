"""Virtual hosts that the test at hand does not need stand still.

Under TCG a host with a guest in it takes a good part of a processor even when nothing is asked
of it, and those that several tests share live long. So before each test the hosts of other
fixtures are stopped. Nothing depends on the guess: whoever uses a host that stands still lets
it go on (`harness.machine.machine.Machine.stand_still`).
"""

from __future__ import annotations

import contextlib
import weakref

import pytest

from harness.errors import HarnessError
from harness.host.virtual import VirtualHost, living

_OF_EVERY_TEST = frozenset(
    {"parts", "run_key", "shared_evidence", "host", "virtual_host", "device_names", "another_host"}
)
"""Fixtures of ours that hold no host for a few tests alone."""


class Stillness:
    """Knows with which fixtures each host came."""

    def __init__(self) -> None:
        self._came_with: weakref.WeakKeyDictionary[VirtualHost, frozenset[str]] = (
            weakref.WeakKeyDictionary()
        )

    def before(self, item: pytest.Item) -> None:
        """Let the hosts that *item* does not need stand still, and the others go on."""
        wanted = _kept(item)
        for host in living():
            with contextlib.suppress(HarnessError):  # who needs it will say so
                if self._came_with.get(host, wanted) & wanted:
                    host.machine.go_on()
                else:
                    host.stand_still()

    def wake(self) -> None:
        """Let all go on: what they hold is taken down."""
        for host in living():
            with contextlib.suppress(HarnessError):
                host.machine.go_on()

    def after(self, item: pytest.Item) -> None:
        """Note the hosts that came with *item*."""
        kept = _kept(item)
        for host in living():
            self._came_with.setdefault(host, kept)


def _kept(item: pytest.Item) -> frozenset[str]:
    """Return the fixtures of *item* that outlive it."""
    definitions = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    # Those of plugins, which some have for every test, have no base.
    longer = {
        name
        for name, found in definitions.items()
        if found[-1].scope != "function" and found[-1].baseid
    }
    return frozenset(longer - _OF_EVERY_TEST) or frozenset({"host"})

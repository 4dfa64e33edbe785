"""The resident nested guest: booted once, shared by many tests, given up when devices are needed.

A device can be in one machine only, and a lab may have a single one. So whoever wants it in
another way asks the resident guest to go; the next test that needs the guest boots it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from harness.errors import HarnessError
from harness.host.host import Host
from harness.lab.nested import Nested, start_nested

log = logging.getLogger(__name__)


class Resident:
    """Keeper of the resident guest of one host.

    :param names: test devices that it has.
    :param make_evidence: makes a new directory for the evidence of each boot.
    """

    def __init__(
        self, host: Host, names: tuple[str, ...], make_evidence: Callable[[str], Path]
    ) -> None:
        self.host = host
        self.names = names
        self._make_evidence = make_evidence
        self._running: Nested | None = None
        self._boots = 0

    def get(self) -> Nested:
        """Return the guest, booting it if it is not there or not well."""
        if self._running is not None:
            try:
                self._running.machine.check()
            except HarnessError as error:
                log.warning("the resident guest is booted again: %s", error.summary)
                self.give_up()
        if self._running is None:
            self._boots += 1
            self._running = start_nested(
                self.host, self.names, evidence=self._make_evidence(f"resident-{self._boots}")
            )
        return self._running

    def give_up(self) -> None:
        """End the guest, so that its devices are free."""
        if self._running is None:
            return
        running, self._running = self._running, None
        try:
            if running.guest is not None:
                running.guest.keep_kernel_log()
        except HarnessError as error:
            log.warning("no kernel log of the resident guest: %s", error.summary)
        finally:
            running.close()

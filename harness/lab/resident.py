"""The machine that has the test devices: a booted guest that lives on, or one with firmware only.

A function can be in one machine at a time. So there is one keeper per host: who asks it for
another machine ends the one that has the devices now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.errors import HarnessError
from harness.host.host import Host
from harness.lab.nested import Nested, prepare, start_nested
from harness.model.pci import PciFunction
from harness.model.vfio_mapping import VfioOptions

log = logging.getLogger(__name__)

Properties = Mapping[str, str | int | bool]


class Resident:
    """Keeps one machine with the test devices *names* of *host*.

    :param make_evidence: makes the evidence directory of the machine with the given name.
    """

    def __init__(
        self, host: Host, names: tuple[str, ...], make_evidence: Callable[[str], Path]
    ) -> None:
        self.host = host
        self.names = names
        self._make_evidence = make_evidence
        self._running: Nested | None = None
        self._wish: object = None
        self._started = 0

    def get(self) -> Nested:
        """Return the guest with every device, booting it if it is not there or not well."""
        return self._keep("resident", lambda place: start_nested(
            self.host, self.names, evidence=place
        ))  # fmt: skip

    def never_read(self) -> Nested:
        """Return the guest, a new one if the flat views of the running one were read.

        Up to QEMU 11.1 at least, reading them keeps devices from ever leaving
        (docs/findings/info-mtree-leaks-flat-views.md).
        """
        if self._running is not None and self._running.machine.qmp.flat_views_read:
            self.give_up()
        return self.get()

    def firmware_only(
        self,
        names: tuple[str, ...],
        properties: Properties | None = None,
        options: VfioOptions | None = None,
        each: Mapping[str, VfioOptions] | None = None,
    ) -> Nested:
        """Return a machine without an operating system; the same one if asked again for it."""
        wish = (names, tuple((properties or {}).items()), options, tuple((each or {}).items()))
        return self._keep(wish, lambda place: start_nested(
            self.host, names, evidence=place, boot=False,
            options=options, properties=properties, each=each,
        ))  # fmt: skip

    def special(self, name: str, start: Callable[[Path], Nested]) -> Nested:
        """Return the machine called *name*, made by *start* unless it is there already."""
        return self._keep(name, start)

    def _keep(self, wish: object, start: Callable[[Path], Nested]) -> Nested:
        if self._running is not None and not self._is_well(wish):
            self.give_up()
        if self._running is None:
            self._started += 1
            kind = wish if isinstance(wish, str) else "firmware"
            self._running = start(self._make_evidence(f"{kind}-{self._started}"))
            self._wish = wish
        return self._running

    def _is_well(self, wish: object) -> bool:
        if wish != self._wish or self._running is None:
            return False
        try:
            self._running.machine.check()
            self._running.machine.check_running()
        except HarnessError as error:
            log.warning("%s is started again: %s", self._running.machine.spec.name, error.summary)
            return False
        return True

    def free(self, name: str) -> PciFunction:
        """Return the device *name*, bound to vfio-pci and in no machine of ours."""
        self.give_up()
        return prepare(self.host, [name])[name]

    def give_up(self) -> None:
        """End the machine, so that its devices are free."""
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

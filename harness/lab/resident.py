"""The machines that have the test devices: guests that live on, and machines with firmware only.

On a host that is there once, a function can be in one machine at a time: who asks for another
machine ends the one that has the devices now. Where hosts go on from saved states each guest
gets a host of its own, so several live side by side and none has to boot.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import HarnessError, TimeStandsStill
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.lab.nested import Nested, guest_spec, prepare, start_nested, take_nested
from harness.machine.command import Device, MachineSpec
from harness.model.pci import PciFunction
from harness.model.vfio.mapping import VfioOptions

log = logging.getLogger(__name__)

Properties = Mapping[str, str | int | bool]
OpenWithGuest = Callable[[MachineSpec, Path], VirtualHost]

LATE = "trapline.late"
"""Word for the guest's kernel line: its functions come after its boot."""
_MOST_TIMES = 4
"""Times that a saved guest is tried; of those that stand still one in three did so again."""
_MOST_APART = 2
"""Guests with hosts of their own that live at a time."""


class Resident:
    """Keeps machines with the test devices *names* of *host*.

    :param make_evidence: makes the evidence directory of the machine with the given name.
    :param open_with_guest: opens a host of its own in which a guest is up; None where hosts
        are not saved.
    """

    def __init__(
        self,
        host: Host,
        names: tuple[str, ...],
        make_evidence: Callable[[str], Path],
        open_with_guest: OpenWithGuest | None = None,
    ) -> None:
        self.host = host
        self.names = names
        self._make_evidence = make_evidence
        self._open_with_guest = open_with_guest
        self._here: Nested | None = None
        self._wish: object = None
        self._apart: dict[object, Nested] = {}
        self._started = 0

    def get(self) -> Nested:
        """Return the guest with every device, making it if it is not there or not well."""
        return self.guest("resident")

    def never_read(self) -> Nested:
        """Return the guest, a new one if the flat views of the running one were read.

        Up to QEMU 11.1 at least, reading them keeps devices from ever leaving
        (docs/findings/info-mtree-leaks-flat-views.md).
        """
        running = self.get()
        if running.machine.qmp.flat_views_read:
            self.end(running)
        return self.get()

    def guest(
        self,
        name: str,
        *,
        devices: Sequence[str] | None = None,
        properties: Properties | None = None,
        iommu: Device | None = None,
        append: str = "",
        emulated: Sequence[Device] = (),
        extra: Sequence[str] = (),
    ) -> Nested:
        """Return the guest called *name*, made as the other parameters say unless it is there.

        :param devices: test devices that are assigned to it; None is all of them.
        :param properties: of every vfio-pci device.
        :param emulated: further devices of its machine.
        :param extra: further words for its QEMU.
        """
        names = self.names if devices is None else tuple(devices)

        def boot(host: Host, place: Path) -> Nested:
            return start_nested(
                host, names, evidence=place, properties=properties, iommu=iommu,
                append=append, emulated=emulated, extra=extra,
            )  # fmt: skip

        def in_own_host(opened: VirtualHost, place: Path) -> Nested:
            try:
                if opened.left is not None:
                    found = take_nested(opened, names, evidence=place, properties=properties)
                else:  # it had to boot
                    found = boot(opened, place)
            except BaseException:
                opened.close()
                raise
            found.owns_host = True
            return found

        def start(place: Path) -> Nested:
            if self._open_with_guest is None:
                return boot(self.host, place)
            spec = guest_spec(
                self.host.guest, iommu=iommu, append=f"{append} {LATE}".strip(),
                emulated=emulated, extra=extra,
            )  # fmt: skip
            own = place / "host"
            own.mkdir()
            for _again in range(_MOST_TIMES - 1):
                try:
                    return in_own_host(self._open_with_guest(spec, own), place)
                except TimeStandsStill as error:
                    log.warning("%s", error.summary)
            return in_own_host(self._open_with_guest(spec, own), place)

        if self._open_with_guest is None:
            return self._keep_here(name, start)
        return self._keep_apart(name, start)

    def firmware_only(
        self,
        names: tuple[str, ...],
        properties: Properties | None = None,
        options: VfioOptions | None = None,
        each: Mapping[str, VfioOptions] | None = None,
        more: Mapping[str, Properties] | None = None,
    ) -> Nested:
        """Return a machine without an operating system; the same one if asked again for it."""
        further = tuple((name, tuple(said.items())) for name, said in (more or {}).items())
        apart = (tuple((each or {}).items()), further)
        wish = (names, tuple((properties or {}).items()), options, apart)
        return self._keep_here(wish, lambda place: start_nested(
            self.host, names, evidence=place, boot=False,
            options=options, properties=properties, each=each, more=more,
        ))  # fmt: skip

    def free(self, name: str) -> PciFunction:
        """Return the device *name* of `host`, bound to vfio-pci and in no machine of ours."""
        self.free_devices()
        return prepare(self.host, [name])[name]

    def free_devices(self) -> None:
        """End the machine that has the devices of `host`, if one has them."""
        if self._here is not None:
            self.end(self._here)

    def end(self, machine: Nested) -> None:
        """End one of the machines kept here."""
        if machine is self._here:
            self._here = None
        for name in [name for name, one in self._apart.items() if one is machine]:
            del self._apart[name]
        try:
            if machine.guest is not None:
                machine.guest.keep_kernel_log()
        except HarnessError as error:
            log.warning("no kernel log of %s: %s", machine.machine.spec.name, error.summary)
        finally:
            machine.close()

    def close(self) -> None:
        """End them all, whatever becomes of the others."""
        with contextlib.ExitStack() as last_first:
            for machine in [*self._apart.values(), *([self._here] if self._here else [])]:
                last_first.callback(self.end, machine)

    # inside

    def _keep_here(self, wish: object, start: Callable[[Path], Nested]) -> Nested:
        if self._here is not None and not (wish == self._wish and _is_well(self._here)):
            self.end(self._here)
        if self._here is None:
            self._here = start(self._place(wish))
            self._wish = wish
        return self._here

    def _keep_apart(self, name: str, start: Callable[[Path], Nested]) -> Nested:
        running = self._apart.pop(name, None)
        if running is not None and not _is_well(running):
            self.end(running)
            running = None
        while len(self._apart) >= _MOST_APART:
            self.end(next(iter(self._apart.values())))
        self._apart[name] = running or start(self._place(name))  # last: used most lately
        return self._apart[name]

    def _place(self, wish: object) -> Path:
        self._started += 1
        kind = wish if isinstance(wish, str) else "firmware"
        return self._make_evidence(f"{kind}-{self._started}")


def _is_well(machine: Nested) -> bool:
    try:
        machine.machine.check()
        machine.machine.check_running()
    except HarnessError as error:
        log.warning("%s is started again: %s", machine.machine.spec.name, error.summary)
        return False
    return True

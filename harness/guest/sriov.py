"""SR-IOV of one function, as Linux offers it in sysfs (``drivers/pci/iov.c``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from harness.errors import CommandFailed
from harness.guest.system import System
from harness.model.pci import Bdf, PciFunction

_PCI = "/sys/bus/pci/devices"


@dataclass(frozen=True, slots=True)
class Sriov:
    """The SR-IOV attributes of the function *bdf* of *system*."""

    system: System
    bdf: Bdf

    def has(self, attribute: str) -> bool:
        """Say whether the function has ``sriov_<attribute>``."""
        return self.system.exists(self._path(attribute))

    def read(self, attribute: str) -> str:
        """Return ``sriov_<attribute>``: numbers as the kernel prints them, ids in hex.

        :raise CommandFailed: it has none.
        """
        return self.system.read_text(self._path(attribute)).strip()

    def write(self, attribute: str, value: int) -> str:
        """Write ``sriov_<attribute>``; return what the kernel said against it, '' for nothing."""
        try:
            self.system.write_text(self._path(attribute), str(value))
        except CommandFailed as refused:
            return refused.stderr
        return ""

    def setting(self, attribute: str, value: int) -> AbstractContextManager[None]:
        """Have ``sriov_<attribute>`` at *value* while inside.

        :raise CommandFailed: the kernel refused.
        """
        return self.system.setting(self._path(attribute), str(value))

    def virtual(self) -> tuple[PciFunction, ...]:
        """Return its virtual functions, in the order of their ``virtfnN`` links."""
        links = self.system.run(
            f"for n in $(seq 0 255); do readlink {_PCI}/{self.bdf}/virtfn$n || break; done",
        ).stdout
        return tuple(
            self.system.function(Bdf.parse(link.rpartition("/")[2])) for link in links.split()
        )

    @contextlib.contextmanager
    def enabled(self, count: int) -> Iterator[tuple[PciFunction, ...]]:
        """Have *count* virtual functions while inside.

        :raise CommandFailed: the kernel refused.
        """
        with self.setting("numvfs", count):
            yield self.virtual()

    def _path(self, attribute: str) -> str:
        return f"{_PCI}/{self.bdf}/sriov_{attribute}"

"""Network cards of Intel that can be told to interrupt: a register raises any cause they have.

82574 (``e1000e``) 10.2.4.4, 82576 (``igb``) 8.8.6 and 8.8.10. Their drivers listen while the
interface is up, and every two seconds raise a cause themselves, lest a frame was forgotten:
what is counted is at least what was raised, and hardly more.
"""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.guest.system import System
from harness.model.interrupts import InterruptTable
from harness.model.pci import Bdf

_CAUSE_SET: Mapping[str, int] = {"e1000e": 0x00C8, "igb": 0x1504}
"""ICS, by driver: for pins and MSI."""
_MINIMUM_THRESHOLD = 0x10
"""RXDMT0, a cause of both that costs the driver a look at its ring."""
_VECTORS: Mapping[str, tuple[int, Mapping[int, int]]] = {
    "e1000e": (0x00C8, {0: 1 << 20, 1: 1 << 22}),
    "igb": (0x1520, {0: 1 << 0, 1: 1 << 1}),
}
"""By driver: the register, and the bit that raises each vector as Linux deals them out: RXQ0 and
TXQ0 of ICS; EICS, which counts vectors."""


@dataclass(frozen=True, slots=True)
class NetworkCard:
    """The card at *bdf* of *system*; *driver* is ``e1000e`` or ``igb``."""

    system: System
    bdf: Bdf
    driver: str

    def up(self) -> None:
        """Have its driver listen. It has no address, and says nothing by itself."""
        name = shlex.quote(self.interface)
        self.system.run(
            f"f=/proc/sys/net/ipv6/conf/{name}/disable_ipv6; [ ! -e $f ] || echo 1 > $f; "
            f"ip link set {name} up"
        )

    def down(self) -> None:
        """Let its driver listen no more."""
        self.system.run(["ip", "link", "set", self.interface, "down"])

    @contextlib.contextmanager
    def by_msi(self) -> Iterator[None]:
        """Have an e1000e interrupt by MSI while inside, not by MSI-X.

        Its driver is told when it is loaded, and only then.
        """
        self.system.run("modprobe -r e1000e && modprobe e1000e IntMode=1")
        try:
            yield
        finally:
            self.system.run("modprobe -r e1000e && modprobe e1000e")

    @property
    def interface(self) -> str:
        """The name of its interface."""
        return self.system.list_directory(f"/sys/bus/pci/devices/{self.bdf}/net")[0]

    def raise_vector(self, vector: int, times: int) -> None:
        """Raise MSI-X *vector* (0 or 1) so often, each when the last one has had its time."""
        register, bits = _VECTORS[self.driver]
        self._raise_slowly(register, bits[vector], times)

    def raise_pin(self, times: int) -> None:
        """Raise its interrupt pin, or its MSI if that is on, in the same way."""
        self._raise_slowly(_CAUSE_SET[self.driver], _MINIMUM_THRESHOLD, times)

    def burst(self, times: int) -> None:
        """Do the same without any pause."""
        self.system.probe(
            "mem", "write", self._registers, _CAUSE_SET[self.driver],
            "--value", _MINIMUM_THRESHOLD, "--count", times,
        )  # fmt: skip

    def arrived(self, since: InterruptTable) -> Counter[int | None]:
        """Return the interrupts of its driver in *since*, by the number inside the chip.

        With MSI-X that is the vector (Linux 6.2 or later).
        """
        name = self.interface
        found: Counter[int | None] = Counter()
        for row in since.rows:
            if any(one == name or one.startswith(f"{name}-") for one in row.names):
                found[row.hardware] += row.total
        return found

    @property
    def _registers(self) -> str:
        return self.system.resource_file(self.bdf, 0)

    def _raise_slowly(self, register: int, bits: int, times: int) -> None:
        words = ["mem", "write", self._registers, hex(register), "--value", hex(bits)]
        one = shlex.join([self.system.probe_path, *words])
        # Starting a program takes longer than any card puts an interrupt off.
        self.system.run(f"for n in $(seq {times}); do {one} > /dev/null || exit 1; done")

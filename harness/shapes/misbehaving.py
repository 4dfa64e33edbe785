"""One device on a bench whose server misbehaves: what QEMU says, reads and does then.

The device has two BARs that nothing maps, so that every access is a message, MSI-X and memory
of its own to reach: enough for each fault of `harness.device.faults`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Final

from harness.device.device import Device
from harness.device.protocol import RequestFailed
from harness.device.server import Served, SessionMaker
from harness.device.session import Session
from harness.errors import HarnessError, LaunchFailed
from harness.machine.launch import Runnable
from harness.model.pci import BarKind
from harness.shapes.bench import Bench
from harness.shapes.served import device_of
from harness.shapes.shape import Decode, Place, Put, Shape, ShapeBar, ShapeMsix
from harness.wait import wait_until

_COMMAND: Final = 0x04
_DECODES_AND_MASTERS: Final = 0x0006
_BY_QEMU: Final = 5.0
"""Seconds QEMU waits for a reply (``wait_time`` in ``hw/vfio-user/proxy.c``)."""

SHAPE: Final = Shape(
    bars=(
        ShapeBar(0, BarKind.MEM32, 0x1000, direct=False),
        ShapeBar(1, BarKind.MEM32, 0x1000, direct=False),
    ),
    msix=ShapeMsix(2, 1, 0, 1, 0x800),
    place=Place.ROOT,
    steps=((Put(0, 0), Put(1, 0x1000), Decode(memory=True, ports=False)),),
)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a QEMU ended that was started with a server."""

    status: int
    """As ``subprocess`` gives it: negative is a signal. 0: it ran, and quit when it was told."""
    said: str


class Misbehaving:
    """A bench with one such device, BARs programmed; a context manager."""

    def __init__(self, qemu: Runnable, session: SessionMaker = Session) -> None:
        self.device: Device = device_of(SHAPE)
        self._bench = Bench(qemu, (SHAPE,), devices={0: self.device}, sessions={0: session})
        try:
            self._bench.do_step(0)
            self._write_command(_DECODES_AND_MASTERS)
        except BaseException:
            self._bench.close()
            raise

    @property
    def served(self) -> Served:
        """Return the server."""
        return self._bench.served[0]

    def read(self, bar: int, offset: int) -> int:
        """Read 32 bits of a BAR as a processor would."""
        return self._bench.qtest.read(self._address(bar) + offset)

    def write(self, bar: int, offset: int, value: int) -> None:
        """Write 32 bits of a BAR as a processor would."""
        self._bench.qtest.write(self._address(bar) + offset, value)

    def read_id(self) -> int:
        """Read vendor and device id, which QEMU has at hand, and the device's say of status."""
        bus, slot = self._bench.place_of(0)
        return self._bench.qtest.config_read(bus, slot, 0, 0)

    def memory(self, address: int, value: int | None = None) -> int:
        """Write 32 bits of the machine's memory, if there is a *value*; then read them."""
        if value is not None:
            self._bench.qtest.write(address, value)
        return self._bench.qtest.read(address)

    def master(self, on: bool) -> None:
        """Set or clear Bus Master Enable."""
        self._write_command(_DECODES_AND_MASTERS if on else 2)

    def enable_msix(self) -> None:
        """Enable MSI-X, with an address in memory in its first vector."""
        msix = self.device.config.places[0x11, False]
        for offset, value in ((0, 0x2000), (4, 0), (8, 1), (12, 0)):
            self.write(1, offset, value)
        bus, slot = self._bench.place_of(0)
        self._bench.qtest.config_write(bus, slot, 0, msix + 2, 0x8000, 2)

    def answers(self) -> bool:
        """Say whether QEMU answers its monitor.

        :raise MachineDied: it is no more.
        """
        return self._bench.hmp("info version") != ""

    def said(self, text: str) -> str:
        """Return all that QEMU said, once it has said *text*.

        :raise WaitTimeout: it does not say it.
        """
        return wait_until(
            f"QEMU says {text!r}",
            lambda: self._bench.stderr() if text in self._bench.stderr() else None,
            timeout=2 * _BY_QEMU,
            last_seen=self._bench.stderr,
        )

    def stderr(self) -> str:
        """Return all that QEMU said so far."""
        return self._bench.stderr()

    def quit(self) -> int:
        """End QEMU as a user would; return its exit status."""
        return self._bench.quit()

    def close(self) -> None:
        """End all."""
        self._bench.close()

    def __enter__(self) -> Misbehaving:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write_command(self, value: int) -> None:
        bus, slot = self._bench.place_of(0)
        self._bench.qtest.config_write(bus, slot, 0, _COMMAND, value, 2)

    def _address(self, bar: int) -> int:
        return self._bench.programmers[0].decoding.places[bar]


def ending_with(qemu: Runnable, session: SessionMaker) -> Ending:
    """Start QEMU with a server, and tell it to quit if it got that far.

    :raise HarnessError: it hangs.
    """
    try:
        with Misbehaving(qemu, session) as machine:
            return Ending(machine.quit(), machine.stderr())
    except LaunchFailed as failed:
        if failed.exit_status is None:
            raise
        return Ending(failed.exit_status, failed.stderr)


def error_of(work: object) -> HarnessError | None:
    """Return the error that *work* (a callable) ends with, None if with none."""
    assert callable(work)
    try:
        work()
    except HarnessError as error:
        return error
    return None


__all__ = ["SHAPE", "Ending", "Misbehaving", "RequestFailed", "ending_with", "error_of"]

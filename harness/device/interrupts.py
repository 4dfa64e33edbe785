"""Interrupts of a device: eventfds that the client gave, masks, and what is pending.

The five types of VFIO (``linux/vfio.h``): INTx, MSI, MSI-X, error, request. INTx masks itself
when it fires and waits for the client to unmask it, as in the kernel's vfio-pci.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
from typing import Final

from harness.device import protocol
from harness.device.protocol import Refused

_NAMES: Final = ("INTx", "MSI", "MSI-X", "error", "request")


def is_eventfd(fd: int) -> bool:
    """Say whether a descriptor is an eventfd; writing to others could block us."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]"
    except OSError:
        return False


def signal(fd: int) -> bool:
    """Add 1 to an eventfd; False if its counter is full, never blocks."""
    if not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if not poll.poll(0):
            return False
    try:
        os.eventfd_write(fd, 1)
    except BlockingIOError:
        return False
    return True


def take(fd: int) -> int:
    """Take what an eventfd has counted: 0 if nothing, never blocks, whoever else reads it."""
    counted = bytearray(8)
    try:
        os.preadv(fd, [counted], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        return 0
    return int.from_bytes(counted, "little")


class IrqType:
    """One of the five: its vectors, their eventfds and masks."""

    def __init__(self, index: int, count: int) -> None:
        self.index = index
        self.count = count
        self.triggers: dict[int, int] = {}
        self.unmask_fd: int | None = None
        self.masked: set[int] = set()
        self.pending: set[int] = set()
        self.enabled = False

    @property
    def flags(self) -> int:
        """Return what GET_IRQ_INFO says of it."""
        if self.index == protocol.INTX:
            return protocol.IRQ_EVENTFD | protocol.IRQ_MASKABLE | protocol.IRQ_AUTOMASKED
        if self.index in (protocol.ERR, protocol.REQ):
            return protocol.IRQ_EVENTFD
        return protocol.IRQ_EVENTFD | protocol.IRQ_MASKABLE | protocol.IRQ_NORESIZE

    def fire(self, vector: int) -> bool:
        """Signal *vector*; False if nobody listens or it is masked (then it stays pending)."""
        fd = self.triggers.get(vector)
        if fd is None:
            return False
        if vector in self.masked:
            self.pending.add(vector)
            return False
        if self.index == protocol.INTX:
            self.masked.add(vector)
        return signal(fd)

    def unmask(self, vector: int) -> None:
        """Unmask *vector*, which fires it if it was pending."""
        self.masked.discard(vector)
        if vector in self.pending:
            self.pending.discard(vector)
            self.fire(vector)

    def set_trigger(self, vector: int, fd: int | None) -> None:
        """Give *vector* an eventfd, which we close when it goes; None takes it away."""
        old = self.triggers.pop(vector, None)
        if old is not None:
            os.close(old)
        if fd is not None:
            self.triggers[vector] = fd

    def set_unmask_fd(self, fd: int | None) -> None:
        """Set the eventfd by which the client unmasks it."""
        if self.unmask_fd is not None:
            os.close(self.unmask_fd)
        self.unmask_fd = fd

    def clear(self) -> None:
        """Disable it: no eventfds, no masks, nothing pending."""
        for fd in self.triggers.values():
            with contextlib.suppress(OSError):
                os.close(fd)
        self.triggers.clear()
        self.set_unmask_fd(None)
        self.masked.clear()
        self.pending.clear()
        self.enabled = False


class Interrupts:
    """The interrupts of one device."""

    def __init__(self, intx: int = 0, msi: int = 0, msix: int = 0, error: int = 0) -> None:
        # Reentrant; held wherever an eventfd is used, so that none is closed under a signal.
        self._lock = threading.RLock()
        counts = (intx, msi, msix, error, 1)
        self.types = tuple(IrqType(index, count) for index, count in enumerate(counts))
        self.asserted = False
        """The device holds the INTx line."""
        self._pulse = False
        self._intx_disabled = False

    @property
    def status(self) -> bool:
        """Say whether INTx is pending: Interrupt Status of configuration space."""
        return self.asserted or self._pulse

    @property
    def intx_disabled(self) -> bool:
        """Say whether Interrupt Disable of the COMMAND register is set."""
        return self._intx_disabled

    @intx_disabled.setter
    def intx_disabled(self, disabled: bool) -> None:
        with self._lock:
            was, self._intx_disabled = self._intx_disabled, disabled
            if was and not disabled and self.status:
                self._fire_intx()

    def fire(self, vector: int = 0) -> bool:
        """Signal a message-signalled vector, of MSI-X or else of MSI; or INTx once.

        :return: False if it is not enabled, or masked (then it stays pending).
        """
        with self._lock:
            for index in (protocol.MSIX, protocol.MSI):
                if self.types[index].enabled:
                    return self.types[index].fire(vector)
            self._pulse = self.types[protocol.INTX].count > 0
            return self._fire_intx()

    def fire_type(self, index: int) -> bool:
        """Signal the first vector of one type: error or request.

        :return: False if nobody listens.
        """
        with self._lock:
            return self.types[index].fire(0)

    def set_line(self, asserted: bool) -> None:
        """Raise or lower INTx; a raised line fires again each time the client unmasks it."""
        with self._lock:
            self.asserted = asserted
            intx = self.types[protocol.INTX]
            if not asserted:
                intx.pending.discard(0)
            elif 0 not in intx.masked:
                self._fire_intx()

    def _fire_intx(self) -> bool:
        return not self._intx_disabled and self.types[protocol.INTX].fire(0)

    def _unmask_intx(self) -> None:
        """The client has handled it: a pulse is over, a raised line fires again."""
        intx = self.types[protocol.INTX]
        again = 0 in intx.pending
        intx.pending.discard(0)
        intx.masked.discard(0)
        self._pulse = again and not self.asserted
        if self.status:
            self._fire_intx()

    def pending_bits(self) -> bytes:
        """Return the pending bit array of MSI-X: 8 bytes for each 64 vectors."""
        msix = self.types[protocol.MSIX]
        with self._lock:
            bits = sum(1 << vector for vector in msix.pending)
        return bits.to_bytes(8 * ((msix.count + 63) // 64), "little")

    def set(
        self, flags: int, index: int, start: int, count: int, data: bytes, fds: list[int]
    ) -> None:
        """Do what SET_IRQS asks; descriptors that are kept are taken out of *fds*.

        :raise Refused: it asks for what no client may.
        """
        irq = self._checked(flags, index, start, count, data, fds)
        action, form = flags & protocol.SET_ACTION, flags & protocol.SET_DATA
        vectors = range(start, start + count)
        with self._lock:
            if count == 0:
                irq.clear()
            elif form == protocol.SET_EVENTFD and action == protocol.SET_TRIGGER:
                self._set_triggers(irq, vectors, fds)
            elif form == protocol.SET_EVENTFD:
                irq.set_unmask_fd(fds.pop() if fds else None)
            else:
                chosen = [v for v in vectors if form == protocol.SET_NONE or data[v - start]]
                self._act(irq, action, chosen)

    def unmask_by_fd(self, irq: IrqType) -> None:
        """Take one event from the unmask eventfd of *irq*."""
        assert irq.unmask_fd is not None
        with self._lock:
            if take(irq.unmask_fd):
                self._act(irq, protocol.SET_UNMASK, [0])

    def clear(self) -> None:
        """Let go of all that a client set up."""
        with self._lock:
            for irq in self.types:
                irq.clear()

    def _set_triggers(self, irq: IrqType, vectors: range, fds: list[int]) -> None:
        for vector in vectors:
            irq.set_trigger(vector, fds.pop(0) if fds else None)
        irq.enabled = bool(irq.triggers) or (
            # QEMU enables a type before it has an eventfd for any vector of it.
            irq.index in (protocol.MSI, protocol.MSIX)
        )

    def _act(self, irq: IrqType, action: int, vectors: list[int]) -> None:
        for vector in vectors:
            if action == protocol.SET_MASK:
                irq.masked.add(vector)
            elif action == protocol.SET_UNMASK:
                if irq.index == protocol.INTX:
                    self._unmask_intx()
                else:
                    irq.unmask(vector)
            else:
                irq.fire(vector)

    def _checked(
        self, flags: int, index: int, start: int, count: int, data: bytes, fds: list[int]
    ) -> IrqType:
        if index >= len(self.types):
            raise Refused(f"SET_IRQS: there is no interrupt type {index}")
        irq = self.types[index]
        where = f"SET_IRQS of {_NAMES[index]} {start}+{count}"
        form, action = flags & protocol.SET_DATA, flags & protocol.SET_ACTION
        if (
            form.bit_count() != 1
            or action.bit_count() != 1
            or flags & ~(protocol.SET_DATA | protocol.SET_ACTION)
        ):
            raise Refused(f"{where}: flags {flags:#x} are not one form and one action")
        if start + count > irq.count:
            raise Refused(f"{where}: it has {irq.count} vectors")
        if count == 0 and (form, action, start) != (protocol.SET_NONE, protocol.SET_TRIGGER, 0):
            raise Refused(f"{where}: only 'disable all' has no vectors")
        if form == protocol.SET_BOOL and len(data) != count:
            raise Refused(f"{where}: {len(data)} booleans")
        if fds and (form != protocol.SET_EVENTFD or len(fds) != count):
            raise Refused(f"{where}: {len(fds)} descriptors")
        if not all(is_eventfd(fd) for fd in fds):
            raise Refused(f"{where}: a descriptor that is no eventfd")
        if index in (protocol.ERR, protocol.REQ) and action != protocol.SET_TRIGGER:
            raise Refused(f"{where}: it cannot be masked")
        unmask = form == protocol.SET_EVENTFD and action == protocol.SET_UNMASK
        if form == protocol.SET_EVENTFD and action == protocol.SET_MASK:
            raise Refused(f"{where}: masking by eventfd is not there, as in the kernel")
        if unmask and index != protocol.INTX:
            raise Refused(f"{where}: only INTx is unmasked by eventfd")
        return irq

"""ioeventfds: registers whose writes a client may signal without a message.

The client (or KVM for it) adds to an eventfd instead of sending REGION_WRITE; we hear of it
and hand the device a write. What value was written is only known with ``datamatch``; else 0.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from harness.device import protocol
from harness.device.device import Device
from harness.device.interrupts import take
from harness.device.protocol import Refused
from harness.device.spec import IoEventSpec
from harness.model.pci import BarKind


class Doorbells:
    """The eventfds of one client, made when it asks for them."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._fds: dict[int, tuple[int, IoEventSpec]] = {}

    @property
    def fds(self) -> set[int]:
        """Return the descriptors to watch."""
        return {fd for fd, _ in self._fds.values()}

    def describe(self, region: int, argsz: int, max_fds: int) -> tuple[bytes, Sequence[int]]:
        """Answer GET_REGION_IO_FDS: what can be signalled in *region*, and by what."""
        chosen = [
            (number, spec)
            for number, spec in enumerate(self._device.ioevents)
            if spec.bar == region
        ]
        if not chosen:
            return protocol.IO_FDS.pack(protocol.IO_FDS.size, 0, region, 0), ()
        full = protocol.IO_FDS.size + len(chosen) * protocol.IO_FD.size
        if argsz < full:
            return protocol.IO_FDS.pack(full, 0, region, len(chosen)), ()
        if len(chosen) > max_fds:
            raise Refused(f"GET_REGION_IO_FDS: {len(chosen)} descriptors, you take {max_fds}")
        parts = [protocol.IO_FDS.pack(full, 0, region, len(chosen))]
        send = []
        for at, (number, spec) in enumerate(chosen):
            send.append(self._fd(number, spec))
            parts.append(
                protocol.IO_FD.pack(
                    spec.offset,
                    spec.width,
                    at,
                    protocol.IO_FD_IOEVENTFD,
                    self._flags(spec),
                    0,
                    spec.datamatch or 0,
                )
            )
        return b"".join(parts), send

    def rung(self, fd: int) -> None:
        """Hand the device the write that *fd* stands for, if it is one of ours and was rung."""
        for known, spec in tuple(self._fds.values()):
            if known != fd:
                continue
            if take(fd):
                self._device.log.add(spec.bar, spec.offset, spec.width, "ioeventfd")
                self._device.write(spec.bar, spec.offset, spec.width, spec.datamatch or 0)

    def close(self) -> None:
        """Close the eventfds."""
        for fd, _ in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _fd(self, number: int, spec: IoEventSpec) -> int:
        if number not in self._fds:
            fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._fds[number] = (fd, spec)
        return self._fds[number][0]

    def _flags(self, spec: IoEventSpec) -> int:
        bar = self._device.bar(spec.bar)
        ports = bar is not None and bar.kind is BarKind.IO
        matched = spec.datamatch is not None
        return matched * protocol.IOEVENTFD_DATAMATCH | ports * protocol.IOEVENTFD_PIO

"""What of the client's memory a device may touch: windows of IO virtual addresses.

A window comes with the descriptor of a memory file, and is then read and written without the
client, or with none, and is then reached by message. Every access is checked against the map
first: the windows are all an IOMMU would let through.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import fcntl
import mmap
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from harness.device import protocol
from harness.device.protocol import Refused
from harness.errors import HarnessError

MAX_FILES: Final = 64
"""Different memory files of one client; each costs us two descriptors."""
_TOP: Final = 1 << 64

ReadByMessage = Callable[[int, int], bytes]
WriteByMessage = Callable[[int, bytes], None]


class DmaFault(HarnessError):
    """A device touched what is not mapped for it, or not so; an IOMMU would have stopped it."""


class _File:
    """A memory file of the client.

    Mapped where it is sealed against shrinking; else read and written by system calls, because
    a mapping of a file that its owner shrinks is SIGBUS.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0
        self._map: mmap.mmap | None = None
        self._mappable = True

    def read(self, offset: int, count: int) -> bytes:
        mapped = self._mapped()
        if mapped is not None:
            data = mapped[offset : offset + count]
        else:
            data = os.pread(self.fd, count, offset)
        if len(data) != count:
            raise DmaFault(f"DMA: the client's memory file ends before {offset + count:#x}")
        return data

    def write(self, offset: int, data: bytes) -> None:
        mapped = self._mapped()
        if mapped is not None and offset + len(data) <= len(mapped):
            mapped[offset : offset + len(data)] = data
        elif os.pwrite(self.fd, data, offset) != len(data):
            raise DmaFault(f"DMA: the client's memory file ends before {offset + len(data):#x}")

    def _mapped(self) -> mmap.mmap | None:
        if self._map is None and self._mappable:
            self._mappable = False
            with contextlib.suppress(OSError, ValueError):
                seals = fcntl.fcntl(self.fd, fcntl.F_GET_SEALS)
                writable = fcntl.fcntl(self.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
                if seals & fcntl.F_SEAL_SHRINK and writable:
                    self._map = mmap.mmap(self.fd, 0)
        return self._map

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Window:
    """One mapping of IO virtual addresses."""

    address: int
    size: int
    readable: bool
    writable: bool
    offset: int = 0
    """In the file."""
    by_message: bool = True
    """It came without a descriptor."""

    @property
    def end(self) -> int:
        """One past its last address."""
        return self.address + self.size


class DmaMap:
    """The windows of one client. Any thread may read and write through them.

    The lock is not held while the client is asked: its answer may come behind a message that
    changes the map.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._starts: list[int] = []
        self._windows: list[tuple[Window, _File | None]] = []
        self._files: dict[tuple[int, int, int], _File] = {}

    @property
    def windows(self) -> tuple[Window, ...]:
        """Return the windows, lowest first."""
        with self._lock:
            return tuple(window for window, _ in self._windows)

    def add(self, address: int, size: int, flags: int, offset: int, fds: list[int]) -> None:
        """Add a window; a descriptor that is kept is taken out of *fds*.

        :raise Refused: empty, past the end, over another, or not with a file that can be read.
        """
        if size == 0 or address + size > _TOP:
            raise Refused(f"DMA_MAP: no such range: {address:#x}, {size:#x} bytes")
        if not flags & (protocol.DMA_READABLE | protocol.DMA_WRITABLE):
            raise Refused(f"DMA_MAP of {address:#x}: neither readable nor writable")
        if len(fds) > 1:
            raise Refused(f"DMA_MAP of {address:#x}: {len(fds)} descriptors, one is the most")
        with self._lock:
            self._add(address, size, flags, offset, fds)

    def _add(self, address: int, size: int, flags: int, offset: int, fds: list[int]) -> None:
        if len(self._windows) >= protocol.MAX_DMA_MAPS:
            raise Refused(f"DMA_MAP of {address:#x}: too many mappings", errno.ENOSPC)
        at = bisect.bisect_left(self._starts, address)
        if at and self._windows[at - 1][0].end > address:
            raise Refused(f"DMA_MAP of {address:#x}: mapped already", errno.EEXIST)
        if at < len(self._starts) and self._starts[at] < address + size:
            raise Refused(f"DMA_MAP of {address:#x}: mapped already", errno.EEXIST)
        file = self._take(fds, offset, size) if fds else None
        window = Window(
            address,
            size,
            bool(flags & protocol.DMA_READABLE),
            bool(flags & protocol.DMA_WRITABLE),
            offset,
            file is None,
        )
        self._starts.insert(at, address)
        self._windows.insert(at, (window, file))

    def remove(self, address: int, size: int) -> None:
        """Remove every window inside this range; there need not be any.

        The text of the protocol wants a range that was mapped just so. QEMU with a vIOMMU
        unmaps the whole address space, as the kernel's type1 lets it; and what a client
        unmaps must be out of reach.

        :raise Refused: the range cuts a window in two; nothing was removed.
        """
        end = address + size
        if size == 0 or end > _TOP:
            raise Refused(f"DMA_UNMAP: no such range: {address:#x}, {size:#x} bytes")
        with self._lock:
            self._remove(address, end)

    def _remove(self, address: int, end: int) -> None:
        first = bisect.bisect_left(self._starts, address)
        last = bisect.bisect_left(self._starts, end)
        cut = self._windows[max(0, first - 1) : last]
        if any(w.address < address < w.end or w.address < end < w.end for w, _ in cut):
            raise Refused(f"DMA_UNMAP of {address:#x} to {end:#x}: it cuts a mapping in two")
        gone = self._windows[first:last]
        del self._starts[first:last], self._windows[first:last]
        for _, file in gone:
            if file is not None:
                self._drop(file)

    def clear(self) -> None:
        """Remove all, and let go of the client's memory."""
        with self._lock:
            self._starts.clear()
            self._windows.clear()
            for file in self._files.values():
                file.users = 0
                file.close()
            self._files.clear()

    def read(
        self, address: int, count: int, ask: ReadByMessage, *, by_message: bool = False
    ) -> bytes:
        """Return *count* bytes from *address*.

        :param by_message: ask the client even where it gave a descriptor.
        :raise DmaFault: not all of it is mapped for reading.
        """
        parts = []
        for window, file, start, length in self._checked(address, count, "readable"):
            if file is None or by_message:
                parts.append(ask(start, length))
                continue
            with self._lock:
                at = _still_there(file, window, start)
                parts.append(file.read(at, length))
        return b"".join(parts)

    def write(
        self, address: int, data: bytes, ask: WriteByMessage, *, by_message: bool = False
    ) -> None:
        """Store *data* at *address*; all of it is checked before any is written.

        :raise DmaFault: not all of it is mapped for writing.
        """
        for window, file, start, length in self._checked(address, len(data), "writable"):
            piece = data[start - address : start - address + length]
            if file is None or by_message:
                ask(start, piece)
                continue
            with self._lock:
                at = _still_there(file, window, start)
                file.write(at, piece)

    def _checked(
        self, address: int, count: int, need: str
    ) -> list[tuple[Window, _File | None, int, int]]:
        with self._lock:
            return list(self._pieces(address, count, need))

    def _pieces(
        self, address: int, count: int, need: str
    ) -> Iterator[tuple[Window, _File | None, int, int]]:
        if count < 0 or address < 0:
            raise DmaFault(f"DMA: no such range: {address:#x}, {count:#x} bytes")
        while count:
            at = bisect.bisect_right(self._starts, address) - 1
            window, file = self._windows[at] if at >= 0 else (None, None)
            if window is None or window.end <= address:
                raise DmaFault(f"DMA: {address:#x} is not mapped")
            if not getattr(window, need):
                raise DmaFault(f"DMA: {address:#x} is not mapped {need}")
            length = min(count, window.end - address)
            yield window, file, address, length
            address, count = address + length, count - length

    def _take(self, fds: list[int], offset: int, size: int) -> _File:
        fd = fds[0]
        facts = os.fstat(fd)
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        if not stat.S_ISREG(facts.st_mode) or mode == os.O_WRONLY:
            raise Refused("DMA_MAP: the descriptor is not of a file that can be read")
        if offset + size > facts.st_size:
            raise Refused(
                f"DMA_MAP: the file has {facts.st_size:#x} bytes, the range ends at "
                f"{offset + size:#x}"
            )
        key = (facts.st_dev, facts.st_ino, mode)
        file = self._files.get(key)
        if file is None:
            if len(self._files) >= MAX_FILES:
                raise Refused(f"DMA_MAP: more than {MAX_FILES} memory files", errno.ENOSPC)
            file = self._files[key] = _File(fds.pop())
        file.users += 1
        return file

    def _drop(self, file: _File) -> None:
        file.users -= 1
        if not file.users:
            self._files = {key: f for key, f in self._files.items() if f is not file}
            file.close()


def _still_there(file: _File, window: Window, address: int) -> int:
    """Return where *address* is in *file*.

    :raise DmaFault: the client took the memory away since the access was checked.
    """
    if not file.users:
        raise DmaFault(f"DMA: {address:#x} was unmapped meanwhile")
    return window.offset + address - window.address

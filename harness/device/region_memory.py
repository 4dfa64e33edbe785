"""The bytes behind a region: a sealed memory file that clients may map.

Sealed so that a client that has the descriptor cannot shrink the file under our feet (a
mapping past the end of its file is SIGBUS, which ends us).
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from typing import Final

_PAGE: Final = mmap.PAGESIZE
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class RegionMemory:
    """*size* bytes, zero at first; made when they are first needed."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._fd = -1
        self._map: mmap.mmap | None = None

    def __del__(self) -> None:
        # A device is no resource to its author; its memory goes with it.
        self.close()

    @property
    def fd(self) -> int:
        """Return the descriptor of the file; we keep it.

        :raise OSError: no file of that size can be made.
        """
        if self._fd < 0:
            fd = os.memfd_create(self.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(fd, -(-self.size // _PAGE) * _PAGE)
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            except OSError:
                os.close(fd)
                raise
            self._fd = fd
        return self._fd

    @property
    def mapped(self) -> mmap.mmap:
        """Return the bytes as one writable mapping, shared with every client that maps them.

        :raise OSError: the address space has no room for it.
        """
        if self._map is None:
            self._map = mmap.mmap(self.fd, -(-self.size // _PAGE) * _PAGE)
        return self._map

    def read(self, offset: int, count: int) -> bytes:
        """Return *count* bytes."""
        if self._fd < 0:
            return bytes(count)
        return os.pread(self._fd, count, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Store *data*."""
        os.pwrite(self.fd, data, offset)

    def close(self) -> None:
        """Give the memory back; it is empty when it is used again."""
        if self._map is not None:
            with contextlib.suppress(BufferError):  # somebody holds a view; it frees it
                self._map.close()
            self._map = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

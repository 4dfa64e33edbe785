"""What was said to the gdbstub: the first exchanges and the last, however many there were."""

from __future__ import annotations

import collections
import contextlib
import time
from pathlib import Path

FIRST = 4000
"""Lines kept from the beginning: all of a boot."""
LAST = 2000
"""Lines kept from the end."""
WIDEST = 400
"""Characters kept of one line."""


class RspLog:
    """A log of bounded size; None as path keeps nothing.

    :param path: is overwritten; what came last is appended by `close`.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file = path.open("w", encoding="ascii", errors="replace") if path else None
        self._count = 0
        self._last: collections.deque[str] = collections.deque(maxlen=LAST)
        self._began = time.monotonic()

    def note(self, way: str, text: str) -> None:
        """Keep one packet: *way* is ``>`` for what we say."""
        if self._file is None:
            return
        self._count += 1
        if len(text) > WIDEST:
            text = f"{text[:WIDEST]}… ({len(text)})"
        line = f"{time.monotonic() - self._began:.6f} {way} {text}\n"
        if self._count > FIRST:
            self._last.append(line)
            return
        with contextlib.suppress(OSError):  # a full disk must not stop the machine
            self._file.write(line)

    def close(self) -> None:
        """Write what came last. Callable twice."""
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError), file:
            left_out = self._count - FIRST - len(self._last)
            if left_out > 0:
                file.write(f"({left_out} lines left out)\n")
            file.writelines(self._last)

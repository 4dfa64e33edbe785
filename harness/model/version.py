"""Versions of QEMU and of Linux: read from what they say of themselves, ordered.

An order of releases is not enough to ask whether a change is in: ``7.0-rc3`` sorts before
``7.0`` and has what 7.0 has. `QemuVersion.has` and `KernelVersion.has` answer that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

_QEMU = re.compile(
    r"(?:QEMU emulator version\s+)?v?(\d+)\.(\d+)(?:\.(\d+))?(?:-rc(\d+))?\b(.*)", re.S
)
_KERNEL = re.compile(
    r"(?:Linux(?: version)?\s+)?v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-~]rc(\d+))?(\D.*)?", re.S
)

RELEASE: Final = 1000
"""Stands for "no candidate": higher than any release candidate's number."""

_LAST_MINOR: Final = {0: 15, 1: 7, 2: 12, 3: 1}
"""Last minor number of each old major; 2 (April, August, December) since 4.0."""


@dataclass(frozen=True, slots=True, order=True)
class QemuVersion:
    """A QEMU version; ``micro`` 50 is the development tree, 90 and up are candidates."""

    major: int
    minor: int
    micro: int = 0
    text: str = field(default="", compare=False)
    """As it was read; may name a distribution's package."""

    @classmethod
    def parse(cls, text: str) -> QemuVersion:
        """Read ``10.0.2 (Debian 1:10.0.2+ds-2)``, ``QEMU emulator version 9.2.50``, ``10.0-rc1``.

        :raise ValueError: it does not start with such a version.
        """
        match = _QEMU.match(text.strip())
        if match is None:
            raise ValueError(f"not a QEMU version (expected like 10.0.2): {text!r}")
        major, minor, micro = int(match[1]), int(match[2]), int(match[3] or 0)
        if match[4] is not None:
            # QEMU's own VERSION file calls 10.0-rc1 9.2.91.
            major, minor = _before(major, minor)
            micro = 90 + int(match[4])
        return cls(major, minor, micro, text.strip())

    def has(self, major: int, minor: int) -> bool:
        """Say whether a change first released in *major*.*minor* is in.

        A development tree (``micro`` from 50 on) counts as the release it leads to.
        """
        wanted = (major, minor)
        if self.micro >= 50:
            return _after(self.major, self.minor) >= wanted
        return (self.major, self.minor) >= wanted

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.micro}"


def _after(major: int, minor: int) -> tuple[int, int]:
    return (major, minor + 1) if minor < _LAST_MINOR.get(major, 2) else (major + 1, 0)


def _before(major: int, minor: int) -> tuple[int, int]:
    return (major, minor - 1) if minor else (major - 1, _LAST_MINOR.get(major - 1, 2))


@dataclass(frozen=True, slots=True, order=True)
class KernelVersion:
    """A Linux version, ``uname -r``."""

    major: int
    minor: int
    patch: int = 0
    candidate: int = RELEASE
    """Number of the release candidate, or `RELEASE`."""
    text: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> KernelVersion:
        """Read ``6.12.48+deb13-amd64``, ``7.0-rc3``, ``Linux version 6.1.0-37-amd64 (…)``.

        :raise ValueError: it does not start with such a version.
        """
        match = _KERNEL.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"not a Linux version (expected like 6.12.48): {text!r}")
        candidate = RELEASE if match[4] is None else int(match[4])
        return cls(int(match[1]), int(match[2]), int(match[3] or 0), candidate, text.strip())

    def has(self, major: int, minor: int) -> bool:
        """Say whether a change first released in *major*.*minor* is in (candidates have it)."""
        return (self.major, self.minor) >= (major, minor)

    def __str__(self) -> str:
        tail = "" if self.candidate == RELEASE else f"-rc{self.candidate}"
        return f"{self.major}.{self.minor}.{self.patch}{tail}"

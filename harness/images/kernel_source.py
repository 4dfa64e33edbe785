"""Where a kernel comes from: a Debian suite, its source, or a bzImage of yours (x86 or s390x)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError

_MAGIC_AT = 0x202
_VERSION_POINTER_AT = 0x20E

_S390_MAGIC_AT = 0x10008
_S390_MAGIC = b"S390EP"
_S390_VERSION_POINTER_AT = 0x10428
_START = 0x40000
"""Bytes of a kernel in which all of that is."""


@dataclass(frozen=True, slots=True)
class KernelSource:
    """``debian:<suite>``, ``built:<series>``, or a bzImage with or without its modules."""

    suite: str = ""
    bzimage: Path | None = None
    modules: Path | None = None
    """``lib/modules/<release>`` or a root that has it; None: everything is built in."""
    series: str = ""
    """``7.3``: compiled here from Debian's package of that source."""

    @classmethod
    def parse(cls, text: str) -> KernelSource:
        """Parse ``debian:SUITE``, ``built:SERIES`` or ``BZIMAGE[:MODULES_DIR]``.

        :raise ConfigError: none of them, or the files are not there or not what they should be.
        """
        if text.startswith("built:"):
            series = text.removeprefix("built:")
            if not re.fullmatch(r"\d+\.\d+", series):
                raise ConfigError(
                    f"kernel {text!r}: no such series of kernels", hint="for example built:7.3"
                )
            return cls(series=series)
        if text.startswith("debian:"):
            suite = text.removeprefix("debian:")
            if not suite or not suite.replace("-", "").isalnum():
                raise ConfigError(
                    f"kernel {text!r}: no such suite", hint="for example debian:trixie-backports"
                )
            return cls(suite=suite)
        name, _, modules = text.partition(":")
        bzimage = Path(name).expanduser().absolute()
        release = read_release(bzimage)
        directory = Path(modules).expanduser().absolute() if modules else None
        if directory is not None:
            directory = _find_modules(directory, release)
        return cls(bzimage=bzimage, modules=directory)

    @property
    def is_for_x86_alone(self) -> bool:
        """Say whether there is no kernel of a mainframe of that name.

        :raise ConfigError: the bzImage cannot be read.
        """
        return bool(self.series) or (self.bzimage is not None and not is_s390x(self.bzimage))

    def __str__(self) -> str:
        if self.series:
            return f"built:{self.series}"
        if self.bzimage is None:
            return f"debian:{self.suite}"
        return f"{self.bzimage}:{self.modules}" if self.modules else str(self.bzimage)


def read_release(bzimage: Path) -> str:
    """Read ``uname -r`` from a bzImage.

    x86: Documentation/arch/x86/boot.rst, kernel_version. s390x: arch/s390/boot/head.S, the
    string at 0x10008, and ``kernel_version`` of ``struct parmarea`` (asm/setup.h).

    :raise ConfigError: the file cannot be read or is no bzImage.
    """
    start = _read_start(bzimage)
    if is_s390x(bzimage):
        (pointer,) = struct.unpack_from(">Q", start, _S390_VERSION_POINTER_AT)
    elif start[_MAGIC_AT : _MAGIC_AT + 4] == b"HdrS":
        (offset,) = struct.unpack_from("<H", start, _VERSION_POINTER_AT)
        pointer = offset + 0x200 if offset else 0
    else:
        raise ConfigError(
            f"kernel {bzimage} is not a bzImage",
            seen=f"{start[_MAGIC_AT : _MAGIC_AT + 4].hex(' ')} where HdrS should be",
            hint="give arch/x86/boot/bzImage (not vmlinux)",
        )
    words = start[pointer:].split(b"\0")[0].decode(errors="replace").split()
    return words[0] if pointer and words else "unknown"


def is_s390x(bzimage: Path) -> bool:
    """Say whether a kernel is one of a mainframe.

    :raise ConfigError: the file cannot be read.
    """
    start = _read_start(bzimage)
    end = _S390_VERSION_POINTER_AT + 8
    return len(start) >= end and start[_S390_MAGIC_AT:].startswith(_S390_MAGIC)


def _read_start(bzimage: Path) -> bytes:
    try:
        with bzimage.open("rb") as file:
            return file.read(_START)
    except OSError as error:
        raise ConfigError(
            f"kernel {bzimage} cannot be read",
            seen=str(error),
            hint="give debian:SUITE, built:SERIES or the path of a bzImage",
        ) from error


def _find_modules(directory: Path, release: str) -> Path:
    for place in (
        directory,
        directory / release,
        directory / "lib/modules" / release,
        directory / "usr/lib/modules" / release,
    ):
        if place.name == release and place.is_dir():
            return place
    raise ConfigError(
        f"{directory} has no modules of kernel {release}",
        seen=f"neither {release}/ nor lib/modules/{release}/ in it",
        hint=f"make modules_install INSTALL_MOD_PATH={directory}",
    )

"""Where a kernel comes from: a Debian suite, or a bzImage of yours."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError

_MAGIC_AT = 0x202
_VERSION_POINTER_AT = 0x20E


@dataclass(frozen=True, slots=True)
class KernelSource:
    """``debian:<suite>``, or a bzImage with or without the directory of its modules."""

    suite: str = ""
    bzimage: Path | None = None
    modules: Path | None = None
    """``lib/modules/<release>`` or a root that has it; None: everything is built in."""

    @classmethod
    def parse(cls, text: str) -> KernelSource:
        """Parse ``debian:SUITE`` or ``BZIMAGE[:MODULES_DIR]``.

        :raise ConfigError: neither, or the files are not there or not what they should be.
        """
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

    def __str__(self) -> str:
        if self.bzimage is None:
            return f"debian:{self.suite}"
        return f"{self.bzimage}:{self.modules}" if self.modules else str(self.bzimage)


def read_release(bzimage: Path) -> str:
    """Read ``uname -r`` from a bzImage (Documentation/arch/x86/boot.rst, kernel_version).

    :raise ConfigError: the file cannot be read or is no bzImage.
    """
    try:
        with bzimage.open("rb") as file:
            start = file.read(0x10000)
    except OSError as error:
        raise ConfigError(
            f"kernel {bzimage} cannot be read",
            seen=str(error),
            hint="give debian:SUITE or the path of a bzImage",
        ) from error
    if start[_MAGIC_AT : _MAGIC_AT + 4] != b"HdrS":
        raise ConfigError(
            f"kernel {bzimage} is not a bzImage",
            seen=f"{start[_MAGIC_AT : _MAGIC_AT + 4].hex(' ')} where HdrS should be",
            hint="give arch/x86/boot/bzImage (not vmlinux)",
        )
    (pointer,) = struct.unpack_from("<H", start, _VERSION_POINTER_AT)
    words = start[pointer + 0x200 :].split(b"\0")[0].decode(errors="replace").split()
    return words[0] if pointer and words else "unknown"


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

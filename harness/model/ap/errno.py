"""The errors that the AP bus and vfio_ap answer writes with."""

from __future__ import annotations

import enum


class Errno(enum.StrEnum):
    """A Linux error by its name; the value is the name, numbers are those of s390x and x86."""

    EPERM = "EPERM"
    ENOENT = "ENOENT"
    EIO = "EIO"
    EAGAIN = "EAGAIN"
    EACCES = "EACCES"
    EBUSY = "EBUSY"
    EEXIST = "EEXIST"
    ENODEV = "ENODEV"
    EINVAL = "EINVAL"
    ERANGE = "ERANGE"
    EUSERS = "EUSERS"
    EADDRINUSE = "EADDRINUSE"
    EADDRNOTAVAIL = "EADDRNOTAVAIL"

    @property
    def number(self) -> int:
        """The number, as in ``errno``."""
        return _KNOWN[self][0]

    @property
    def message(self) -> str:
        """What a shell prints: ``Address already in use``."""
        return _KNOWN[self][1]

    @classmethod
    def of(cls, number: int) -> Errno:
        """Return the error of *number*, whatever its sign.

        :raise ValueError: it is not one of these.
        """
        for error, (known, _) in _KNOWN.items():
            if known == abs(number):
                return error
        raise ValueError(f"errno {number} is not one that the AP bus answers with")


_KNOWN = {
    Errno.EPERM: (1, "Operation not permitted"),
    Errno.ENOENT: (2, "No such file or directory"),
    Errno.EIO: (5, "Input/output error"),
    Errno.EAGAIN: (11, "Resource temporarily unavailable"),
    Errno.EACCES: (13, "Permission denied"),
    Errno.EBUSY: (16, "Device or resource busy"),
    Errno.EEXIST: (17, "File exists"),
    Errno.ENODEV: (19, "No such device"),
    Errno.EINVAL: (22, "Invalid argument"),
    Errno.ERANGE: (34, "Numerical result out of range"),
    Errno.EUSERS: (87, "Too many users"),
    Errno.EADDRINUSE: (98, "Address already in use"),
    Errno.EADDRNOTAVAIL: (99, "Cannot assign requested address"),
}


class KernelError(Exception):
    """A refusal inside the model; operations turn it into an `Outcome`, so nobody else sees it.

    :param log: the lines that the kernel logs with it.
    """

    def __init__(self, errno: Errno, *, log: tuple[str, ...] = ()) -> None:
        super().__init__(f"{errno}: {errno.message}")
        self.errno = errno
        self.log = log

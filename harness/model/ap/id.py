"""Names of AP queues, and numbers as the kernel reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.model.ap.errno import Errno, KernelError

IDS = 256
"""Adapters, and domains, that a mask has bits for (``AP_DEVICES``, ``AP_DOMAINS``)."""

_APQN = re.compile(r"([0-9a-f]{2})\.([0-9a-f]{4})")
_DIGITS = "0123456789abcdef"
_ULONG = 1 << 64


@dataclass(frozen=True, slots=True, order=True)
class Apqn:
    """An AP queue: one domain of one adapter, printed ``05.00ab`` (adapter ``.`` domain)."""

    adapter: int
    domain: int

    def __post_init__(self) -> None:
        if not (0 <= self.adapter < IDS and 0 <= self.domain < IDS):
            raise ValueError(f"no AP queue: adapter {self.adapter:#x}, domain {self.domain:#x}")

    @classmethod
    def parse(cls, text: str) -> Apqn:
        """Read ``05.00ab``: two and four lower-case hexadecimal digits.

        :raise ValueError: *text* is something else, or the domain is above 255.
        """
        match = _APQN.fullmatch(text)
        if match is None:
            raise ValueError(f"not the name of an AP queue: {text!r}")
        return cls(int(match[1], 16), int(match[2], 16))

    @classmethod
    def of(cls, value: int) -> Apqn:
        """Return the queue of the low 16 bits of GR0, ``AP_MKQID`` in the kernel."""
        return cls(value >> 8 & 0xFF, value & 0xFF)

    @property
    def value(self) -> int:
        """What PQAP, NQAP and DQAP take in GR0."""
        return self.adapter << 8 | self.domain

    def __str__(self) -> str:
        return f"{self.adapter:02x}.{self.domain:04x}"


def kstrtoul(text: str) -> int:
    """Read a number as ``kstrtoul(text, 0, …)`` does (lib/kstrtox.c).

    Decimal, 0x hexadecimal, or octal after a leading 0; one ``+`` before and one newline after.

    :raise KernelError: ERANGE if it does not fit 64 bits (whatever follows the digits), else
        EINVAL.
    """
    value, used, overflow = _integer(text.removeprefix("+"))
    if overflow:
        raise KernelError(Errno.ERANGE)
    rest = text.removeprefix("+")[used:]
    if not used or rest not in ("", "\n"):
        raise KernelError(Errno.EINVAL)
    return value


def simple_strtoul(text: str) -> tuple[int, int]:
    """Read a number as ``simple_strtoul(text, &end, 0)`` does: (value, characters used).

    It takes no sign, stops where the digits stop, and wraps at 64 bits without a word.
    """
    value, used, _ = _integer(text)
    return value % _ULONG, used


def _integer(text: str) -> tuple[int, int, bool]:
    """Return value, characters used, and whether 64 bits were too few."""
    base, start = 10, 0
    if text[:1] == "0":
        base = 8
        if text[1:2] in ("x", "X") and text[2:3].lower() in _DIGITS and text[2:3]:
            base, start = 16, 2
    end = start
    while end < len(text) and text[end].lower() in _DIGITS[:base]:
        end += 1
    value = int(text[start:end], base) if end > start else 0
    return value, end if end > start else 0, value >= _ULONG

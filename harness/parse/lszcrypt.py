"""Output of ``lszcrypt`` and ``lszcrypt -V`` (s390-tools, zconf/zcrypt/lszcrypt.c).

Columns are told by the header where there is one, else by their number. The status may be two
words (``in use``), and is all that stands between the mode and the columns on the right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import ParseError
from harness.model.ap.id import Apqn

_FIRST = re.compile(r"CARD\.DOM(AIN)?\b")
_RULE = re.compile(r"-+")
_DEVICE = re.compile(r"([0-9a-f]{2})(?:\.([0-9a-f]{4}))?", re.IGNORECASE)
_SHORT = ("TYPE", "MODE", "STATUS", "REQUESTS")
_VERBOSE = (*_SHORT, "PENDING", "HWTYPE", "QDEPTH", "FUNCTIONS", "DRIVER")
_NO_DRIVER = "-no-driver-"


@dataclass(frozen=True, slots=True)
class LszcryptRow:
    """One card, or one queue of it; what is shown as ``-``, or not shown, is None."""

    adapter: int
    domain: int | None
    """None: the row is the card's."""
    type: str | None
    """``CEX7A``."""
    mode: str
    """``CCA-Coproc``, ``Accelerator``, ``EP11-Coproc``, ``Unknown``."""
    status: str | None
    """``online``, ``offline``, ``deconfig``, ``chkstop``; with vfio_ap ``assigned`` and so on."""
    requests: int | None
    pending: int | None = None
    hwtype: int | None = None
    depth: int | None = None
    functions: str | None = None
    """One letter for each facility, ``SMC-A-N--``."""
    driver: str | None = None
    se_state: str | None = None
    """Of queues of a Secure Execution guest: ``bound``, ``unbound``, ``usable``, …"""

    @property
    def name(self) -> str:
        """``05``, or ``05.0004``."""
        return f"{self.adapter:02x}" if self.apqn is None else str(self.apqn)

    @property
    def apqn(self) -> Apqn | None:
        """The queue, None if the row is a card's."""
        return None if self.domain is None else Apqn(self.adapter, self.domain)


def parse_lszcrypt(text: str) -> tuple[LszcryptRow, ...]:
    """Read the rows, with or without header, verbose or not.

    :raise ParseError: a line is neither header, rule nor row.
    """
    columns: tuple[str, ...] | None = None
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or _RULE.fullmatch("".join(words)):
            continue
        if _FIRST.match(words[0]):
            columns = tuple(words[1:])
            continue
        known = columns or (_VERBOSE if len(words) > len(_VERBOSE) else _SHORT)
        rows.append(_row(words, known, text, f"line {number}"))
    return tuple(rows)


def _row(words: list[str], columns: tuple[str, ...], text: str, where: str) -> LszcryptRow:
    device = _DEVICE.fullmatch(words[0])
    right = len(columns) - columns.index("STATUS") - 1 if "STATUS" in columns else 0
    if device is None or "STATUS" not in columns or len(words) < len(columns):
        raise ParseError("this is not a row of lszcrypt", text=text, where=where)
    left = columns.index("STATUS") + 1
    fields = dict(zip(columns[: left - 1], words[1:left], strict=True))
    fields["STATUS"] = " ".join(words[left : len(words) - right]) or "-"
    fields |= zip(columns[left:], words[len(words) - right :], strict=True)
    try:
        return LszcryptRow(
            adapter=int(device[1], 16),
            domain=None if device[2] is None else int(device[2], 16),
            type=_text(fields.get("TYPE")),
            mode=fields.get("MODE", ""),
            status=_text(fields["STATUS"]),
            requests=_number(fields.get("REQUESTS")),
            pending=_number(fields.get("PENDING")),
            hwtype=_number(fields.get("HWTYPE")),
            depth=_number(fields.get("QDEPTH")),
            functions=fields.get("FUNCTIONS"),
            driver=None if fields.get("DRIVER") == _NO_DRIVER else fields.get("DRIVER"),
            se_state=_text(fields.get("SESTAT")),
        )
    except ValueError as error:
        raise ParseError(f"not a row of lszcrypt: {error}", text=text, where=where) from error


def _text(word: str | None) -> str | None:
    return None if word == "-" else word


def _number(word: str | None) -> int | None:
    return None if word in (None, "-") else int(word)

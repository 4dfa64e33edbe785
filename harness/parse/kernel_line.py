"""What stands in front of a kernel message: priority, time, thread, host name; taken off.

Sources: ``kernel/printk/printk.c:print_prefix()`` (``[    1.234567][    T1]``),
util-linux ``dmesg`` (``--time-format``), journald's short format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][AB0]|\x1bc")
_STAMP = re.compile(r"(?:<\d{1,3}>)?\[\s*(\d+\.\d{6})\] ?(?:\[\s*[TC]\d+\] )?")
_OTHER_STAMPS = re.compile(
    r"(?:<\d{1,3}>)?(?:"
    r"\[\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\] "
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[,.]\d+[+-]\d\d:?\d\d "
    r"|\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ kernel: "
    r")"
)
_PRIORITY = re.compile(r"<\d{1,3}>")


@dataclass(frozen=True, slots=True)
class KernelLine:
    """One line of a console or of ``dmesg``."""

    text: str
    """The message alone."""
    time: float | None = None
    """Seconds since boot; None where the line has none or has wall-clock time."""


def read_kernel_line(line: str) -> KernelLine:
    """Take carriage returns, escapes, priority, time and thread off *line*.

    The last time stamp counts: a console shared with a login prompt gives
    ``login: [   12.000000] message``.
    """
    clean = _ESCAPES.sub("", line).strip("\r\n").replace("\r", "")
    stamps = list(_STAMP.finditer(clean))
    if stamps:
        last = stamps[-1]
        # The journal repeats the kernel's stamp behind its own prefix: nothing is lost here.
        return KernelLine(clean[last.end() :].rstrip(), float(last[1]))
    for pattern in (_OTHER_STAMPS, _PRIORITY):
        match = pattern.match(clean)
        if match is not None:
            return KernelLine(clean[match.end() :].rstrip())
    return KernelLine(clean.rstrip())

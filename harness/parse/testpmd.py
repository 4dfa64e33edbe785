"""What DPDK's testpmd says at its end (app/test-pmd/testpmd.c, fwd_stats_display)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import ParseError

_COUNT = re.compile(r"([RT]X-(?:packets|dropped)):\s*(\d+)")
_ACCUMULATED = "Accumulated forward statistics for all ports"


@dataclass(frozen=True, slots=True)
class ForwardCounts:
    """Packets of all ports since forwarding began."""

    received: int
    received_dropped: int
    sent: int
    sent_dropped: int


def parse_forward_counts(text: str) -> ForwardCounts:
    """Read the accumulated statistics.

    :raise ParseError: there are none, or some are missing.
    """
    _, found, rest = text.partition(_ACCUMULATED)
    counts = {name: int(value) for name, value in _COUNT.findall(rest)}
    wanted = ("RX-packets", "RX-dropped", "TX-packets", "TX-dropped")
    if not found or any(name not in counts for name in wanted):
        raise ParseError("testpmd did not say what it forwarded", text=text, where="testpmd")
    return ForwardCounts(*(counts[name] for name in wanted))

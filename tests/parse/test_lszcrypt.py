"""lszcrypt: every dialect, queues of vfio_ap, and what is no row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ParseError
from harness.model.ap.id import Apqn
from harness.parse.lszcrypt import LszcryptRow, parse_lszcrypt

# IBM's page: lszcrypt -V | grep vfio, of s390-tools before the states of vfio_ap.
IBM = """
00.0001     CEX7A   Accelerator  online         0        0     13     08 -MC-A-NF-  vfio_ap
00.001b     CEX7A   Accelerator  online         0        0     13     08 -MC-A-NF-  vfio_ap
0a.001b     CEX7P   EP11-Coproc  online         0        0     13     08 -----XNF-  vfio_ap
"""
# s390-tools 2.35 on Linux 6.12.107, adapters modelled; one queue is given to a guest by hand.
VERBOSE = """\
CARD.DOM TYPE  MODE        STATUS     REQUESTS  PENDING HWTYPE QDEPTH FUNCTIONS  DRIVER
--------------------------------------------------------------------------------------------
05       CEX7A Accelerator online            0        0     13     09 SMC-A-N--- cex4card
05.0004  CEX7A Accelerator -                 -        -     13     09 SMC-A-N--- -no-driver-
05.0047  CEX7A Accelerator unassigned        -        -     13     09 SMC-A-N--- vfio_ap
05.00ab  CEX7A Accelerator assigned          -        -     13     09 SMC-A-N--- vfio_ap
06.00ab  CEX6A Accelerator in use            -        -     12     09 SMC-A-N--- vfio_ap
"""
SHORT = """\
CARD.DOMAIN TYPE  MODE        STATUS  REQUESTS
----------------------------------------------
05          CEX5C CCA-Coproc  online         2
05.0004     CEX5C CCA-Coproc  deconfig       -
"""
# A guest of Secure Execution has one column more.
SECURE = """\
CARD.DOM TYPE  MODE        STATUS     REQUESTS  PENDING HWTYPE QDEPTH FUNCTIONS  DRIVER      SESTAT
--------------------------------------------------------------------------------------------------
02       CEX8C CCA-Coproc  online            0        0     14     08 SM-D--N--- cex4card    -
02.0005  CEX8C CCA-Coproc  online            0        0     14     08 SM-D--N--- cex4queue   bound
"""


@pytest.mark.rule("AP-23")
def test_eligible_queues_of_ibms_page_are_with_vfio_ap() -> None:
    rows = parse_lszcrypt(IBM)

    assert [str(row.apqn) for row in rows if row.driver == "vfio_ap"] == [
        "00.0001", "00.001b", "0a.001b",
    ]  # fmt: skip
    assert rows[2] == LszcryptRow(
        0x0A, 0x1B, "CEX7P", "EP11-Coproc", "online", 0, 0, 13, 8, "-----XNF-", "vfio_ap"
    )


@pytest.mark.rule("AP-23")
def test_the_verbose_form_says_what_vfio_ap_does_with_a_queue() -> None:
    rows = parse_lszcrypt(VERBOSE)

    assert [row.status for row in rows] == ["online", None, "unassigned", "assigned", "in use"]
    assert [row.driver for row in rows] == ["cex4card", None, "vfio_ap", "vfio_ap", "vfio_ap"]
    assert [row.apqn for row in rows[:2]] == [None, Apqn(5, 4)]
    assert [row.name for row in rows[:2]] == ["05", "05.0004"]
    assert [row.type for row in rows[-2:]] == ["CEX7A", "CEX6A"]
    assert rows[1].requests is None
    assert {row.depth for row in rows} == {9}


def test_the_short_form_has_no_driver() -> None:
    card, queue = parse_lszcrypt(SHORT)

    assert card == LszcryptRow(5, None, "CEX5C", "CCA-Coproc", "online", 2)
    assert (queue.status, queue.requests, queue.driver) == ("deconfig", None, None)


def test_a_secure_guest_sees_whether_a_queue_is_bound() -> None:
    card, queue = parse_lszcrypt(SECURE)

    assert (card.se_state, card.driver) == (None, "cex4card")
    assert (queue.se_state, queue.driver, queue.functions) == ("bound", "cex4queue", "SM-D--N---")


def test_no_card_no_row() -> None:
    assert parse_lszcrypt("") == ()


@pytest.mark.parametrize(
    "text",
    ["No crypto card devices found.", "05.0004 CEX5C", "zz CEX5C CCA-Coproc online 0",
     "05 CEX5C CCA-Coproc online many", "CARD.DOM TYPE\n05 CEX5C"],
)  # fmt: skip
def test_what_is_no_row_is_told(text: str) -> None:
    with pytest.raises(ParseError, match="row of lszcrypt"):
        parse_lszcrypt(text)


statuses = st.sampled_from(["online", "offline", "deconfig", "chkstop", "assigned", "in use", "-"])


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), statuses), max_size=6),
    st.booleans(),
)
def test_rows_are_read_as_they_are_printed(
    rows: list[tuple[int, int, str]], verbose: bool
) -> None:
    """Widths are those of lszcrypt.c."""
    lines = [VERBOSE.splitlines()[0] if verbose else "CARD.DOM TYPE  MODE        STATUS REQUESTS"]
    for adapter, domain, status in rows:
        line = f"{adapter:02x}.{domain:04x}  CEX7A Accelerator {status:<10} {0:>8}"
        if verbose:
            line += f" {'-':>8} {13:>6} {'09':>6} {'-MC-A-N--':<10} {'vfio_ap':<11}"
        lines.append(line)

    found = parse_lszcrypt("\n".join(lines))

    assert [(row.adapter, row.domain, row.status or "-") for row in found] == rows
    assert all(row.driver == ("vfio_ap" if verbose else None) for row in found)

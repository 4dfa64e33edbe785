"""What testpmd says at its end."""

import pytest

from harness.errors import ParseError
from harness.parse.testpmd import ForwardCounts, parse_forward_counts

SAID = """\
Telling cores to stop...
Waiting for lcores to finish...

  ---------------------- Forward statistics for port 0  ----------------------
  RX-packets: 7              RX-dropped: 1             RX-total: 8
  TX-packets: 6              TX-dropped: 1             TX-total: 7
  ----------------------------------------------------------------------------

  +++++++++++++++ Accumulated forward statistics for all ports+++++++++++++++
  RX-packets: 65             RX-dropped: 2             RX-total: 67
  TX-packets: 64             TX-dropped: 3             TX-total: 67
  ++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++

Bye...
"""


def test_the_sums_of_all_ports_count() -> None:
    """Not those of one port, which come first."""
    assert parse_forward_counts(SAID) == ForwardCounts(65, 2, 64, 3)


@pytest.mark.parametrize(
    "text", ["", SAID.partition("+++")[0], SAID.replace("TX-dropped: 3", "TX-dropped: many")]
)
def test_an_end_without_sums_is_an_error(text: str) -> None:
    """It was killed, or speaks another language."""
    with pytest.raises(ParseError, match="did not say what it forwarded"):
        parse_forward_counts(text)

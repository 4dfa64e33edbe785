"""A gap of QEMU's intel-iommu, shown: messages in compatibility format pass it.

Not part of a default run; see docs/findings/vtd-plain-message-passes.md.
"""

from harness.guest.dma_engine import DmaEngine
from harness.lab.grounds import Plot
from suites.isolation.conftest import on
from suites.isolation.test_interrupts import PLAIN, check_nothing_arrived, forge


@on("L1-strict-edu", "L2-intel-edu", "L2-intel-emulated")
def test_a_plain_message_does_not_arrive(plot: Plot, engine: DmaEngine) -> None:
    """With interrupt remapping on, a message in compatibility format is blocked (CFIS is 0)."""
    mark = plot.owner.kernel_log_mark()

    forge(engine, PLAIN)

    check_nothing_arrived(plot.owner, mark)

"""Who serves an access of the guest, counted."""

import pytest

from harness.lab.assigned import Assigned
from harness.model.trap import TrapClass
from harness.testing import only


@only("nvme")
@pytest.mark.rule("TRP-06", "TRP-02")
def test_reads_of_the_msix_table_reach_qemu(assigned: Assigned) -> None:
    """Each read of the MSI-X table is served by QEMU's emulated table."""
    reads = assigned.read(assigned.msix.table_bar, assigned.msix.table_offset)

    assert reads.served_by is TrapClass.TABLE, reads.explain()


@only("nvme")
@pytest.mark.rule("TRP-01")
def test_reads_of_a_mapped_page_are_direct(assigned: Assigned) -> None:
    """Reads of a page wholly covered by one ramd row leave no trace and cause no exit."""
    reads = assigned.read(0, 0x08)

    assert reads.served_by is TrapClass.DIRECT, reads.explain()


@only("nvme")
@pytest.mark.rule("MAP-05", "TRP-03")
def test_rest_of_the_tables_page_traps(assigned: Assigned) -> None:
    """Behind the table, its own page still exits; the next page is direct."""
    beside, behind = assigned.read(0, 0x2800), assigned.read(0, 0x3000)

    assert beside.served_by is TrapClass.RAM_DEVICE, beside.explain()
    assert behind.served_by is TrapClass.DIRECT, behind.explain()

"""What a device assigned to the nested guest may reach by DMA."""

import pytest

from harness.guest.canary import canary
from harness.guest.edu import Edu
from harness.host.virtual import VirtualHost
from harness.lab.assigned import Assigned
from harness.parse.dmesg import dmar_faults
from harness.testing import only


@only("edu")
@pytest.mark.rule("NST-20", "VTD-51")
def test_dma_outside_the_guest_faults(virtual_host: VirtualHost, assigned: Assigned) -> None:
    """A DMA to memory of the host that is no memory of the guest is stopped and logged."""
    edu = Edu(assigned.os, assigned.bdf)
    edu.enable()
    mark = virtual_host.kernel_log_mark()

    with canary(virtual_host, above=assigned.machine.spec.memory_mib << 20) as bystander:
        edu.poke(bystander.address, 0x6261_6421)

        assert bystander.intact
    faults = dmar_faults(virtual_host.kernel_log_since(mark).splitlines())
    assert [(f.source, f.address) for f in faults][:1] == [
        (assigned.function.bdf, bystander.address & ~0xFFF)
    ]

"""What QEMU must refuse, with its exact words."""

import pytest

from harness.host.host import Host
from harness.machine.command import Device, MachineSpec
from harness.suite_fixtures import Refusal


@pytest.mark.rule("VTD-02")
def test_interrupt_remapping_needs_a_split_irqchip(host: Host, refusal: Refusal) -> None:
    """``intremap=on`` with the whole irqchip in the kernel is refused."""
    spec = MachineSpec(
        "refused",
        accel=host.accelerator.option,
        machine_options={"kernel-irqchip": "on"},
        iommu=Device("intel-iommu", "iommu", options={"intremap": True}),
    )

    assert (
        "Interrupt Remapping cannot work with kernel-irqchip=on, please use 'split|off'."
        in refusal(spec)
    )

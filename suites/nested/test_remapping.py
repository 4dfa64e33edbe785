"""Assigning a function in a host whose IOMMU does not remap interrupts."""

from collections.abc import Callable

import pytest

from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.lab.nested import prepare
from harness.parse.dmesg import VfioNote, vfio_messages
from harness.testing import must_fail


def check_refused_for_interrupts(host: Host, said: str) -> None:
    """QEMU could not use the group, and the kernel says that remapping is missing."""
    notes = [m.note for m in vfio_messages(host.kernel_log().splitlines())]
    assert "Operation not permitted" in said, said or "QEMU accepted it"
    assert VfioNote.NO_INTERRUPT_REMAPPING in notes, notes


@pytest.mark.rule("NST-02", "INT-12")
def test_vfio_needs_interrupt_remapping(
    host_without_remapping: VirtualHost, attach: Callable[..., str]
) -> None:
    """Without interrupt remapping the kernel refuses the group, and says why in its log."""
    function = prepare(host_without_remapping, ["nvme"])["nvme"]

    said = attach(host_without_remapping, function.bdf)

    check_refused_for_interrupts(host_without_remapping, said)


@pytest.mark.negative_control("NST-02", "INT-12")
def test_a_host_that_remaps_is_noticed(
    host: Host, free: Callable[..., object], attach: Callable[..., str]
) -> None:
    """A host that remaps interrupts assigns the same function, and logs nothing."""
    free("nvme")
    said = attach(host, prepare(host, ["nvme"])["nvme"].bdf)

    with must_fail():
        check_refused_for_interrupts(host, said)

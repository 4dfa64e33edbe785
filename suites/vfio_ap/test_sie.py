"""What the hardware would interpret: the masks at the entry of SIE (APCB, kvm_host.h).

No guest instruction runs: the adapters of the lab end where SIE begins.
"""

from __future__ import annotations

import pytest

from harness.ap.matrix_device import MatrixDevice
from harness.ap.sie import SieEntry
from harness.ap.vfio_client import VfioClient
from harness.ap.workbench import Workbench
from harness.model.ap.mask import ApMask
from harness.testing import must_fail


@pytest.fixture
def device(freed: Workbench) -> MatrixDevice:
    """Adapters 5, 6 and an absent one, a host's control domain and one that is not."""
    freed.free(0x70)
    return freed.device().configure(adapters=(5, 6, 0x70), domains=(4, 0xAB), control=(0x10, 0x55))


@pytest.fixture
def running(freed: Workbench, device: MatrixDevice) -> VfioClient:
    """A virtual machine with a processor and that device."""
    client = freed.client()
    client.open(device)
    client.do("vcpu")
    return client


def check_masks(
    entry: SieEntry, *, adapters: list[int], domains: list[int], control: list[int]
) -> None:
    """The guest may use these adapters and domains, and control these."""
    wanted = tuple(ApMask.of(ids) for ids in (adapters, domains, control))
    assert (entry.adapters, entry.domains, entry.control_domains) == wanted, str(entry)


@pytest.mark.rule("AP-27")
def test_the_guest_gets_what_all_three_have(freed: Workbench, running: VfioClient) -> None:
    """APM, AQM and ADM are what partition, host and device have; the absent are left out."""
    check_masks(freed.enter_sie(running), adapters=[5, 6], domains=[4, 0xAB], control=[0x10])


@pytest.mark.negative_control("AP-27")
def test_the_assignment_alone_is_not_what_it_gets(freed: Workbench, running: VfioClient) -> None:
    """A mask of all that was assigned fails."""
    with must_fail():
        check_masks(
            freed.enter_sie(running),
            adapters=[5, 6, 0x70], domains=[4, 0xAB], control=[0x10, 0x55],
        )  # fmt: skip


def test_ap_instructions_are_interpreted(freed: Workbench, running: VfioClient) -> None:
    """APIE is set and the control block has format 2: masks of 256 bits."""
    entry = freed.enter_sie(running)

    assert (entry.interprets, entry.format) == (True, 2)


@pytest.mark.rule("AP-14")
def test_an_unplugged_adapter_is_gone_from_the_mask(
    freed: Workbench, running: VfioClient, device: MatrixDevice
) -> None:
    """After unassign_adapter the next entry of SIE has its bit cleared."""
    freed.enter_sie(running)
    device.unassign_adapter(6)
    device.unassign_control_domain(0x10)

    check_masks(freed.enter_sie(running), adapters=[5], domains=[4, 0xAB], control=[])


@pytest.mark.rule("AP-14")
def test_a_plugged_domain_is_in_the_mask(
    freed: Workbench, running: VfioClient, device: MatrixDevice
) -> None:
    """After assign_domain the next entry of SIE has its bit set."""
    device.assign_domain(0x47)

    check_masks(freed.enter_sie(running), adapters=[5, 6], domains=[4, 0x47, 0xAB], control=[0x10])


@pytest.mark.rule("AP-12")
def test_a_filtered_adapter_is_not_in_the_mask(freed: Workbench, running: VfioClient) -> None:
    """An adapter of which a queue is unbound has no bit."""
    freed.bus.unbind("06.0004")

    check_masks(freed.enter_sie(running), adapters=[5], domains=[4, 0xAB], control=[0x10])


def test_a_closed_device_leaves_no_mask(freed: Workbench, running: VfioClient) -> None:
    """A machine that let go of its device enters SIE with empty masks."""
    running.close_device()

    check_masks(freed.enter_sie(running), adapters=[], domains=[], control=[])


def test_an_adapter_the_partition_loses_is_gone_from_the_mask(
    freed: Workbench, running: VfioClient
) -> None:
    """A lost adapter has no bit at the next entry."""
    freed.unplug(6)

    check_masks(freed.enter_sie(running), adapters=[5], domains=[4, 0xAB], control=[0x10])

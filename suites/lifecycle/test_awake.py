"""A physical function that has virtual ones does not sleep."""

import pytest

from harness.guest.sriov import Sriov
from harness.host.host import Host
from harness.model.pci import Bdf
from harness.suite_fixtures import Free
from harness.testing import must_fail
from suites.lifecycle.conftest import StartBare, on_root_bus

pytestmark = pytest.mark.full

SLOT = 0x10
PM, CONTROL, D3 = 0x01, 4, 3


def state_after_d3(host: Host, bare: StartBare, bdf: Bdf) -> str:
    """Let a guest send the function to D3; return the state that it has then."""
    registers = bare(on_root_bus("igb", SLOT, host.function(bdf))).registers(SLOT)
    registers.change(registers.capability(PM) + CONTROL, clear=3, set=D3)
    return host.read_text(f"/sys/bus/pci/devices/{bdf}/power_state").strip()


def check_awake(state: str) -> None:
    """The function is in D0."""
    assert state == "D0", state


@pytest.mark.rule("RST-15")
def test_it_does_not_sleep(host: Host, free: Free, bare: StartBare) -> None:
    """A physical function stays in D0 while it has virtual ones, whatever its guest writes."""
    function = Sriov(host, free("igb").bdf)

    with host.parameter("vfio_pci", "enable_sriov", "Y"), function.enabled(1):
        check_awake(state_after_d3(host, bare, function.bdf))


@pytest.mark.negative_control("RST-15")
def test_one_that_may_sleep_is_noticed(host: Host, free: Free, bare: StartBare) -> None:
    """Without them it goes to sleep."""
    with must_fail():
        check_awake(state_after_d3(host, bare, free("igb").bdf))

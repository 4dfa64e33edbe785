"""vhost below an IOMMU: what is refused when its driver starts it, what is translated.

The driver is a few writes over qtest, in a machine whose processor rests: nothing needs to boot.
"""

from __future__ import annotations

import pytest

from harness.host.host import Host
from harness.lab.vtd import properties_of
from harness.machine.command import Device
from harness.model.vtd.notifiers import VHOST_CASES, VhostCase, other_way
from harness.testing import must_fail, skip
from suites.virtio.conftest import FAULT, StartVhost, VhostStart

pytestmark = pytest.mark.full

CASES = [pytest.param(c, id=c.name, marks=pytest.mark.rule(c.rule)) for c in VHOST_CASES]
CONTROLS = [
    pytest.param(c, id=c.name, marks=pytest.mark.negative_control(c.rule)) for c in VHOST_CASES
]
INTEL = Device("intel-iommu", "iommu")


def iommu_of(host: Host, case: VhostCase) -> Device:
    """Return the IOMMU of *case*; skips where this QEMU cannot be told so."""
    properties = properties_of(host, case.driver)
    if lacking := case.lacking(properties):
        skip(
            f"QEMU {host.qemu.version} cannot be set up so: {lacking}",
            enabled_by="such a build (--qemu)",
        )
    bus, addr = ("", "") if case.driver == "intel-iommu" else ("pcie.0", "0x1e")
    return Device(case.driver, "iommu", bus, addr, case.arguments(properties))


def check_start(came: VhostStart, words: str | None) -> None:
    """QEMU ends in an orderly way with *words* when the device starts; None: it starts."""
    outcome = came.outcome
    assert outcome.accepted == (words is None), f"expected {words or 'a start'!r}: {outcome}"
    assert words is None or (outcome.orderly and words in outcome.said), outcome
    assert words is not None or (came.started is not None and came.started.runs), came.started


@pytest.mark.parametrize("case", CASES)
def test_start_below_an_iommu(host: Host, start_vhost: StartVhost, case: VhostCase) -> None:
    """An IOMMU that cannot tell vhost what it must know ends QEMU, with the reason."""
    came = start_vhost(iommu_of(host, case), ats=case.ats)

    check_start(came, case.expected(host.qemu.version))


@pytest.mark.parametrize("case", CONTROLS)
def test_a_start_that_ends_otherwise_is_noticed(
    host: Host, start_vhost: StartVhost, case: VhostCase
) -> None:
    """An IOMMU set up in the other way fails the check."""
    other = other_way(case, host.qemu.version)
    came = start_vhost(iommu_of(host, other), ats=other.ats)

    with must_fail():
        check_start(came, case.expected(host.qemu.version))


def check_translated(came: VhostStart) -> None:
    """Its driver was given the platform's DMA, and its queues were looked up and not found."""
    assert came.started is not None, came.outcome
    assert came.started.platform, f"features {came.started.offered:#x}"
    assert any(event.name == FAULT for event in came.faults), "no fault: it was not translated"


def check_bypassed(came: VhostStart) -> None:
    """Its driver was not offered the platform's DMA, and it runs without asking the IOMMU."""
    assert came.started is not None, came.outcome
    assert not came.started.platform, f"features {came.started.offered:#x}"
    assert came.started.runs, came.started
    assert not came.faults, came.faults


@pytest.mark.rule("VTD-58")
@pytest.mark.negative_control("VTD-59")
def test_vhost_of_the_platform_is_translated(start_vhost: StartVhost) -> None:
    """vhost with ``iommu_platform=on`` asks the IOMMU for its queues, and faults without maps."""
    came = start_vhost(INTEL)

    check_translated(came)
    with must_fail():
        check_bypassed(came)


@pytest.mark.rule("VTD-59")
@pytest.mark.negative_control("VTD-58")
def test_other_vhost_bypasses(start_vhost: StartVhost) -> None:
    """vhost without it runs, as if there were no IOMMU."""
    came = start_vhost(INTEL, platform=False)

    check_bypassed(came)
    with must_fail():
        check_translated(came)

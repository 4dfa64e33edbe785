"""iommu-testdev: DMA through an IOMMU without a guest (QEMU docs/specs/iommu-testdev.rst)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness.host.host import Host
from harness.machine.command import Device, MachineSpec
from harness.machine.qtest import Qtest
from harness.machine.vtd import enable_translation
from harness.suite_fixtures import Launch
from harness.testing import must_fail, skip

pytestmark = pytest.mark.full

DRIVER = "iommu-testdev"
SLOT, BAR = 0xC, 0xE000_0000
TRIGGER, IOVA_LOW, IOVA_HIGH, LENGTH, RESULT, DOORBELL, ATTRIBUTES, MEMORY_LOW, MEMORY_HIGH = (
    0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x1C, 0x20,
)  # fmt: skip
ARMED = 0xFFFF_FFFE
NOT_SECURE = 1 << 1
ADDRESS = 0x20_0000
PATTERN = 0x1234_5678


@pytest.fixture
def testdev(host: Host, launch: Launch) -> Iterator[Qtest]:
    """A machine with an intel-iommu and such a device, which decodes and is bus master."""
    if not host.qemu.features.has_device(DRIVER):
        skip(f"QEMU {host.qemu.version} has no {DRIVER}", enabled_by="QEMU 11.0 or later")
    socket = "/run/trapline-testdev.qtest"
    spec = MachineSpec(
        "testdev",
        accel=host.accelerator.option,
        memory_mib=16,
        iommu=Device("intel-iommu", "iommu"),
        devices=(Device(DRIVER, "testdev", "pcie.0", hex(SLOT)),),
        paused=True,
    )
    words = ("-qtest", f"unix:{socket},server=on,wait=off", "-qtest-log", "none")
    machine = launch(replace(spec, extra=words))
    qtest = Qtest(machine.place.connect(socket, timeout=10), name="testdev")
    qtest.config_write(0, SLOT, 0, 0x10, BAR)
    qtest.config_write(0, SLOT, 0, 0x04, 0x6, 2)
    yield qtest
    qtest.close()


def dma(qtest: Qtest) -> int:
    """Let the device write its pattern to `ADDRESS` and read it back; return its result."""
    words = {IOVA_LOW: ADDRESS, IOVA_HIGH: 0, MEMORY_LOW: ADDRESS, MEMORY_HIGH: 0, LENGTH: 4,
             ATTRIBUTES: NOT_SECURE, DOORBELL: 1}  # fmt: skip
    for register, value in words.items():
        qtest.write(BAR + register, value)
    assert qtest.read(BAR + RESULT) == ARMED, hex(qtest.read(BAR + RESULT))
    qtest.read(BAR + TRIGGER)
    return qtest.read(BAR + RESULT)


def check_written(qtest: Qtest) -> None:
    """Its DMA succeeds, and memory holds the pattern."""
    result = dma(qtest)
    assert (result, qtest.read(ADDRESS)) == (0, PATTERN), f"result {result:#x}"


@pytest.mark.rule("ENV-15")
def test_dma_needs_no_guest(testdev: Qtest) -> None:
    """Driven over qtest, the device writes through an IOMMU that does not translate yet."""
    check_written(testdev)


@pytest.mark.negative_control("ENV-15")
def test_dma_that_is_blocked_is_noticed(testdev: Qtest) -> None:
    """With translation on and nothing mapped its DMA fails, and so does the check."""
    enable_translation(testdev)

    with must_fail():
        check_written(testdev)

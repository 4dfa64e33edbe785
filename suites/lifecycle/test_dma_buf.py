"""The dma-buf that QEMU has the kernel make of a BAR, and what it changes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.host.host import Host
from harness.lab.assigned import Assigned
from harness.lab.nested import Nested, start_nested
from harness.lab.resident import Resident
from harness.model.vfio.mapping import VfioOptions
from harness.suite_fixtures import Free
from harness.testing import must_fail

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("with_dma_buf")]

Started = Callable[..., Nested]


@pytest.fixture
def with_dma_buf(host: Host, free: Free) -> None:
    """Kernel and QEMU make one of a BAR."""
    if not host.qemu.version.has(11, 0):
        pytest.skip("this QEMU makes no dma-buf: QEMU 11.0 or later would enable this")
    free("nvme")  # loads the module
    found = host.run("grep -c vfio_pci_core_feature_dma_buf /proc/kallsyms", check=False).stdout
    if not int(found or 0):
        pytest.skip(
            "the kernel of the host has no CONFIG_VFIO_PCI_DMABUF (Linux 6.19, with"
            " CONFIG_PCI_P2PDMA): trapline run --qemu debian:trixie-backports"
            " --kernel debian:trixie-backports lifecycle/test_dma_buf.py would enable this"
        )


@pytest.fixture
def started(host: Host, resident: Resident, evidence: Path) -> Iterator[Started]:
    """Start a machine with firmware only and an nvme."""
    resident.free_devices()
    with ExitStack() as stack:

        def start(**properties: bool) -> Nested:
            machine = start_nested(
                host, ["nvme"], evidence=evidence, boot=False,
                properties={name.replace("_", "-"): value for name, value in properties.items()},
                options=VfioOptions(no_mmap=bool(properties)),
            )  # fmt: skip
            stack.callback(machine.close)
            return machine

        yield start


def check_shared_without_a_trace(host: Host, assigned: Assigned) -> None:
    """A process has a dma-buf open, and the map is what it is without."""
    found = host.run("ls -l /proc/[0-9]*/fd 2>/dev/null | grep dmabuf; :").stdout.splitlines()
    assert found, "no process has a dma-buf"
    there, expected = assigned.memory_map(), assigned.expectation()
    assert not expected.compare(there), expected.explain(there)


@pytest.mark.rule("MAP-33")
def test_a_dma_buf_does_not_change_the_map(host: Host, started: Started) -> None:
    """The mapped BAR has a dma-buf, and the map is what device and options imply."""
    check_shared_without_a_trace(host, started().assigned["nvme"])


@pytest.mark.negative_control("MAP-33")
def test_a_bar_without_dma_buf_is_noticed(host: Host, started: Started) -> None:
    """A BAR that is not mapped has none."""
    nvme = started(x_no_mmap=True).assigned["nvme"]

    with must_fail():
        check_shared_without_a_trace(host, nvme)

"""What a real kernel adds: pending bits, pages that it reserves, mappings that it refuses."""

import re
import signal
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from harness.errors import LaunchFailed
from harness.lab.shape_host import ShapeMachine
from harness.machine.traces import TraceWindow
from harness.model.memory_map import Kind
from harness.testing import must_fail
from harness.wait import wait_until
from suites.named_shapes.conftest import Prepared, SpareMachine

PAGE: Final = 4096

# -- a masked vector is pending ----------------------------------------------------------------

XL710: Final = "xl710"
ENABLE: Final = 1 << 31
"""MSI-X Enable in the 32 bits at the capability's start (PCIe 6.0, 7.7.2.2)."""


class Vector:
    """Vector 0 of the XL710, written as a guest's driver would."""

    def __init__(self, machine: ShapeMachine, there: Prepared) -> None:
        self.machine = machine
        self.assigned = machine.assigned[XL710]
        self.device = there.there.served[XL710].device
        self._slot = there.there.slots[XL710]
        self._entry = self.assigned.table().start

    def enable(self) -> None:
        """Point it at the local APIC, unmask it, and switch MSI-X on."""
        qtest = self.machine.qtest
        for offset, value in ((0, 0xFEE00000), (4, 0), (8, 0x41), (12, 0)):
            qtest.write(self._entry + offset, value)
        at = self.assigned.msix.offset
        qtest.config_write(0, self._slot, 0, at, qtest.config_read(0, self._slot, 0, at) | ENABLE)

    def disable(self) -> None:
        """Unmask it and switch MSI-X off."""
        self.mask(False)
        qtest, at = self.machine.qtest, self.assigned.msix.offset
        value = qtest.config_read(0, self._slot, 0, at) & ~ENABLE
        qtest.config_write(0, self._slot, 0, at, value)

    def mask(self, masked: bool) -> None:
        """Write its mask bit."""
        self.machine.qtest.write(self._entry + 12, int(masked))

    def fire(self) -> None:
        """Let the device send it."""
        assert self.device.interrupt(0), "the host's kernel has not enabled the vector"


@pytest.fixture
def vector(plain: ShapeMachine, shape_host: Prepared) -> Iterator[Vector]:
    """Vector 0 of the XL710, enabled; off again afterwards."""
    found = Vector(plain, shape_host)
    found.enable()
    yield found
    found.disable()


def wait_for(window: TraceWindow, event: str) -> None:
    """Wait until QEMU says *event*."""
    wait_until(
        f"trace event {event}",
        lambda: any(found.name == event for found in window.so_far()),
        timeout=20,
    )


def rows_of_pba(vector: Vector) -> list[tuple[str, Kind]]:
    """Return who answers where the pending bits are."""
    pba = vector.assigned.msix.pba.shifted(vector.assigned.window(3).start)
    found = vector.machine.machine.memory_map().memory.covering(pba)
    return [(row.name, row.kind) for row in found]


def check_pba_traps(vector: Vector) -> None:
    """The pending bits are a window of QEMU's."""
    assert rows_of_pba(vector) == [("msix-pba", Kind.IO)]


@pytest.mark.rule("MAP-10")
def test_pending_bits_trap_while_a_masked_vector_is_pending(vector: Vector) -> None:
    """A masked vector fires: the PBA becomes i/o. It is unmasked: the PBA is mapped again."""
    machine = vector.machine.machine
    with machine.tracing("vfio_msix_pba_enable", "vfio_msix_pba_disable") as window:
        vector.mask(True)
        vector.fire()
        wait_for(window, "vfio_msix_pba_enable")
        check_pba_traps(vector)
        vector.mask(False)
        wait_for(window, "vfio_msix_pba_disable")
    bdf = vector.assigned.function.bdf
    assert rows_of_pba(vector) == [(f"{bdf} BAR 3 mmaps[0]", Kind.RAMD)]


@pytest.mark.negative_control("MAP-10")
def test_mapped_pending_bits_are_noticed(vector: Vector) -> None:
    """The check fails while the vector is masked but nothing is pending."""
    vector.mask(True)

    with must_fail():
        check_pba_traps(vector)


# -- BARs below a page -------------------------------------------------------------------------


def check_reserved(machine: ShapeMachine, name: str, bar: int) -> None:
    """Linux has reserved the rest of the BAR's page for vfio, and QEMU maps the whole page."""
    assigned = machine.assigned[name]
    found = assigned.function.bar(bar)
    assert found.address is not None
    end = found.address + found.size
    line = rf"{end:08x}-{found.address | PAGE - 1:08x} : vfio sub-page reserved"
    assert re.search(line, machine.host.read_text("/proc/iomem")), line
    rows = machine.map.memory.covering(assigned.window(bar))
    assert [(row.kind, row.range.size) for row in rows] == [(Kind.RAMD, PAGE)], rows


@pytest.mark.parametrize("bar", [0, 1])
@pytest.mark.rule("MAP-15", "MAP-16")
def test_rest_of_the_page_is_reserved(plain: ShapeMachine, bar: int) -> None:
    """A BAR below a page that has its page for itself is mapped, the rest of it reserved."""
    check_reserved(plain, "small", bar)


@pytest.mark.parametrize(("name", "bar"), [("rtl8168", 2), ("qat-vf", 0)])
@pytest.mark.negative_control("MAP-15")
def test_missing_reservation_is_noticed(plain: ShapeMachine, name: str, bar: int) -> None:
    """The check fails on BARs of a whole page: nothing needs to be reserved."""
    with must_fail():
        check_reserved(plain, name, bar)


# -- mappings that the kernel refuses ----------------------------------------------------------

NO_SPACE: Final = "= -28 (No space left on device)"
NOT_EVEN_RAM, RAM_BEFORE_RESET, RAM_ONLY, ALL = 1, 2, 5, 65535
"""Mappings that the kernel allows: a machine of ours has RAM in 2 sections while it is built, in 5
after its reset (three below 1 MiB become writable or not), and a BAR is one more each."""


def start(prepared: Prepared, spare_machine: SpareMachine, allowed: int) -> tuple[int, str]:
    """Start the spare machine with so many mappings; return its exit status and its words.

    :returns: 0 if it runs.
    """
    with prepared.there.host.parameter("vfio_iommu_type1", "dma_entry_limit", str(allowed)):
        try:
            machine = spare_machine(f"allowed-{allowed}").machine
        except LaunchFailed as failure:
            return failure.exit_status or 0, failure.stderr
        machine.check_alive()
        return 0, machine.stderr()


def check_error(outcome: tuple[int, str]) -> None:
    """QEMU refuses the device: RAM cannot be mapped for it."""
    status, said = outcome
    assert status == 1
    assert "memory listener initialization failed" in said and NO_SPACE in said, said


def check_fatal(outcome: tuple[int, str]) -> None:
    """QEMU ends itself (abort): RAM cannot be mapped any more."""
    status, said = outcome
    assert status == -signal.SIGABRT
    assert "vfio: DMA mapping failed, unable to continue" in said, said


def check_warning(outcome: tuple[int, str]) -> None:
    """QEMU warns of a BAR, and goes on."""
    status, said = outcome
    assert status == 0
    assert re.search(rf"warning: vfio_container_dma_map\(.*\) {re.escape(NO_SPACE)}", said), said
    assert "PCI peer-to-peer transactions on BARs are not supported" in said, said


CASES: Final = [(NOT_EVEN_RAM, check_error), (RAM_BEFORE_RESET, check_fatal),
                (RAM_ONLY, check_warning)]  # fmt: skip


@pytest.mark.parametrize(("allowed", "check"), CASES)
@pytest.mark.rule("MAP-31")
def test_refused_mapping(
    shape_host: Prepared,
    spare_machine: SpareMachine,
    allowed: int,
    check: Callable[[tuple[int, str]], None],
) -> None:
    """RAM that cannot be mapped is an error at first and fatal later; a BAR is a warning."""
    check(start(shape_host, spare_machine, allowed))


@pytest.mark.negative_control("MAP-31")
def test_allowed_mappings_are_noticed(shape_host: Prepared, spare_machine: SpareMachine) -> None:
    """Each of the checks fails where the kernel allows every mapping."""
    outcome = start(shape_host, spare_machine, ALL)

    for check in (check_error, check_fatal, check_warning):
        with must_fail():
            check(outcome)


# -- a pin that cannot be trusted --------------------------------------------------------------


def check_pin_is_hidden(machine: ShapeMachine, name: str, log: str) -> None:
    """The device has a pin, the kernel says that it masks it, and the guest sees none."""
    function = machine.assigned[name].function
    seen = machine.machine.function_of(name).pin
    assert function.interrupt_pin, f"{name} has no interrupt pin at all"
    assert f"{function.bdf}: Masking broken INTx support" in log, f"not said of {function.bdf}"
    assert seen == 0, f"the guest sees pin {seen}"


@pytest.mark.full
@pytest.mark.rule("INT-11")
def test_broken_pin_is_masked(plain: ShapeMachine, shape_host: Prepared) -> None:
    """Of an XL710, which cannot signal INTx reliably, vfio masks it and shows no pin."""
    check_pin_is_hidden(plain, XL710, shape_host.there.host.kernel_log())


@pytest.mark.full
@pytest.mark.parametrize("name", ["nvidia", "ati"])
@pytest.mark.negative_control("INT-11")
def test_pin_that_works_is_noticed(plain: ShapeMachine, shape_host: Prepared, name: str) -> None:
    """The pins of other devices are left as they are."""
    with must_fail():
        check_pin_is_hidden(plain, name, shape_host.there.host.kernel_log())

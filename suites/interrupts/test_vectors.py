"""Vectors of MSI-X: how many the kernel lets QEMU have, and when QEMU takes them."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

import pytest

from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import assigned_device, nested_spec
from harness.lab.assigned import Assigned
from harness.model.pci import MsixCapability
from harness.parse.trace_log import TraceEvent, parse_trace_log
from harness.suite_fixtures import Free, Launch
from harness.testing import must_fail, only

SETUP = "vfio_msix_early_setup"
MSIX, NORESIZE = 2, 8
"""Index of MSI-X, and the flag that says it cannot grow (include/uapi/linux/vfio.h)."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """What is said of the vectors of a device."""

    count: int
    resizable: bool


def said_by_kernel(host: Host, bdf: object) -> Vectors:
    """Return what the kernel's vfio-pci says of MSI-X."""
    said = host.run([host.probe_path, "vfio", "info", str(bdf)]).stdout
    found = re.search(rf"^irq={MSIX} count=(\d+) flags=(\S+)$", said, re.M)
    assert found, said
    return Vectors(int(found[1]), not int(found[2], 16) & NORESIZE)


def said_by_qemu(events: Collection[TraceEvent]) -> Vectors:
    """Return what QEMU noted as it set the device up."""
    found = [re.search(r"entries (\d+), noresize (\d)", e.arguments) for e in events]
    assert len(found) == 1 and found[0], events
    return Vectors(int(found[0][1]), found[0][2] == "0")


def check_resizable(kernel: Vectors, qemu: Vectors, msix: MsixCapability) -> None:
    """Kernel and QEMU agree: as many vectors as the table has, allocated when they are used."""
    wanted = Vectors(msix.vectors, True)
    assert (kernel, qemu) == (wanted, wanted), (kernel, qemu, wanted)


@pytest.mark.full
@pytest.mark.usefixtures("resizable")
@pytest.mark.parametrize("name", ["nvme", "igb"])
@pytest.mark.rule("INT-16")
@pytest.mark.negative_control("INT-16")
def test_vectors_may_be_added_later(host: Host, free: Free, launch: Launch, name: str) -> None:
    """Since Linux 6.5 the vectors of MSI-X can grow in number; QEMU knows it from the flag."""
    function = free(name)
    assert function.msix is not None
    kernel = said_by_kernel(host, function.bdf)
    spec = nested_spec(accel=host.accelerator.option, memory_mib=64,
                       assigned=[assigned_device(name, str(function.bdf))])  # fmt: skip

    machine = launch(replace(spec, paused=True, extra=("-trace", f"enable={SETUP}")))

    events = parse_trace_log(machine.place.read(machine.sockets.trace).decode())
    qemu = said_by_qemu([event for event in events if event.name == SETUP])
    check_resizable(kernel, qemu, function.msix)
    with must_fail():
        check_resizable(kernel, replace(qemu, resizable=False), function.msix)
    with must_fail():
        check_resizable(kernel, qemu, replace(function.msix, vectors=function.msix.vectors + 1))


def check_taken_when_used(host: set[int | None], guest: set[int | None], entries: int) -> None:
    """The host has given out the vectors that the guest uses, and no more of the table."""
    assert guest and host == guest, f"guest {guest}, host {host}"
    assert len(host) < entries, f"all {entries}"


def vectors_of(host: VirtualHost, assigned: Assigned) -> set[int | None]:
    """Return the vectors that vfio has for *assigned* in the host."""
    return {row.hardware for row in host.interrupts().containing(f"]({assigned.function.bdf})")}


@only("nvme")
@pytest.mark.rule("INT-16")
def test_vectors_are_taken_when_used(nested_host: VirtualHost, assigned: Assigned) -> None:
    """Of the many vectors of an nvme the host allocates those that the guest's driver uses."""
    guest = {row.hardware for row in assigned.os.interrupts().containing("nvme0q")}

    check_taken_when_used(vectors_of(nested_host, assigned), guest, assigned.msix.vectors)


@only("nvme")
@pytest.mark.negative_control("INT-16")
def test_vectors_that_nobody_uses_are_noticed(
    nested_host: VirtualHost, assigned: Assigned
) -> None:
    """One vector more than the guest uses is noticed, and so are all that the table has."""
    guest = {row.hardware for row in assigned.os.interrupts().containing("nvme0q")}
    host, entries = vectors_of(nested_host, assigned), assigned.msix.vectors
    every: set[int | None] = set(range(entries))

    with must_fail():
        check_taken_when_used(host | {len(host)}, guest, entries)
    with must_fail():
        check_taken_when_used(every, every, entries)

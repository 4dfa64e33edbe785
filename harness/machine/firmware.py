"""A machine whose firmware runs to its end: what it set up, and what it left alone.

SeaBIOS tells its steps to the debug port 0x402 (docs/Debugging.md of SeaBIOS); the last one that
matters is that it found nothing to boot.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace

from harness.errors import ParseError
from harness.machine.command import Device, MachineSpec
from harness.machine.machine import Machine
from harness.model.pci import Bdf
from harness.wait import wait_until

NOTHING_TO_BOOT = b"No bootable device"
BUS_MASTER = 0x4
_STREAM = "firmware"
_VALUE = re.compile(r"= 0x([0-9a-f]+)")


def talkative(spec: MachineSpec) -> MachineSpec:
    """Return *spec* so that `run_firmware` can follow its firmware; it starts paused."""
    port = Device("isa-debugcon", "debugcon", options={"iobase": "0x402", "chardev": _STREAM})
    return replace(spec.adding(port), streams=(*spec.streams, _STREAM), paused=True)


def run_firmware(machine: Machine, *, timeout: float = 120) -> str:
    """Let the firmware of a `talkative` machine run until it finds nothing to boot.

    :return: what it said.
    :raise WaitTimeout: it does not come to its end in *timeout* seconds.
    """
    said = bytearray()
    stream = machine.place.connect(machine.sockets.stream(_STREAM), timeout=10)
    stream.settimeout(0.2)

    def ended() -> bool:
        with contextlib.suppress(TimeoutError):
            said.extend(stream.recv(65536))
        return NOTHING_TO_BOOT in said

    with contextlib.closing(stream):
        machine.qmp.execute("cont")
        wait_until(
            f"firmware of {machine.spec.name} finds nothing to boot", ended,
            timeout=timeout, guards=(machine.check_alive,), interval=0.01,
            last_seen=lambda: said[-600:].decode(errors="replace"),
        )  # fmt: skip
    return said.decode(errors="replace")


def read_command(machine: Machine, bdf: Bdf) -> int:
    """Return the command register of *bdf*, on the root bus, by configuration mechanism 1.

    The vCPUs must be stopped, or idle: two writes to ports belong together.

    :raise ParseError: QEMU did not say a number.
    """
    register = bdf.device << 11 | bdf.function << 8 | 0x04
    machine.qmp.hmp(f"o /w 0xcf8 {0x8000_0000 | register:#x}")
    said = machine.qmp.hmp("i /h 0xcfc")
    found = _VALUE.search(said)
    if found is None:
        raise ParseError("QEMU did not say what a port holds", text=said, where="monitor")
    return int(found[1], 16)

"""A guest: the system inside a machine."""

from __future__ import annotations

from harness.guest.system import System
from harness.guest.transport import Transport
from harness.machine.machine import Machine


class Guest(System):
    """The system that runs in ``machine``."""

    def __init__(self, machine: Machine, transport: Transport) -> None:
        super().__init__(transport, level=machine.level)
        self.machine = machine

    def keep_kernel_log(self) -> None:
        """Write its kernel log beside the machine's other evidence, as ``dmesg.log``."""
        (self.machine.evidence / "dmesg.log").write_text(self.kernel_log(), encoding="utf-8")

    def close(self) -> None:
        """Let go of it; its machine is the caller's."""
        self.transport.close()

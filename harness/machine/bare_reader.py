"""A firmware of 94 bytes that reads what it is told: accesses of a vCPU without any guest.

Given as ``-bios``, it goes to flat 32-bit mode and waits for work in a mailbox in RAM, without
an exit. Work is given over qtest, which QEMU serves beside every accelerator. So one word can be
read N times by a vCPU of a machine that has no operating system, and nothing else runs that
could disturb the counts (procedure P-TRAP in a third of a second). The vCPU runs while there is
work only: it waits by spinning.

The segment descriptors have their accessed bit set: a processor would write it, and they are
in ROM.
"""

from __future__ import annotations

from typing import Final

from harness.machine.machine import Machine
from harness.machine.qtest import Qtest
from harness.wait import wait_until

_SIZE: Final = 64 * 1024
_ENTRY: Final = 0xFF00
"""Offset in the image, which ends at 4 GiB."""
_RESET: Final = 0xFFF0
MAILBOX: Final = 0x7000
"""Address, count, last value: 32 bits each."""

# fmt: off
_CODE: Final = bytes.fromhex(
    "fa"                    # cli
    "2e660f011658ff"        # lgdtl %cs:0xff58
    "0f20c0" "0c01" "0f22c0"  # CR0.PE = 1
    "66ea18ffffff0800"      # ljmpl $8, 1f
    "66b81000" "8ed8"       # 1: %ds = 16, all of memory
    "bb00700000"            # %ebx = MAILBOX
    "8b4b04"                # 2: %ecx = count
    "e3fb"                  # nothing to do: 2b
    "8b33"                  # %esi = address
    "8b06"                  # 3: read it
    "49" "75fb"             # %ecx times
    "894308"                # the last value
    "c7430400000000"        # count = 0: done
    "ebe8"                  # 2b
    "8d74260090"            # (nothing)
    "0000000000000000"      # no segment
    "ffff0000009bcf00"      # 8: code, flat
    "ffff00000093cf00"      # 16: data, flat
    "1700" "40ffffff"       # limit and place of these three
)
# fmt: on
_JUMP: Final = b"\xe9" + (_ENTRY - _RESET - 3 & 0xFFFF).to_bytes(2, "little")


def image() -> bytes:
    """Return the file for ``-bios``."""
    data = bytearray(b"\xff" * _SIZE)
    data[_ENTRY : _ENTRY + len(_CODE)] = _CODE
    data[_RESET : _RESET + len(_JUMP)] = _JUMP
    return bytes(data)


class BareReader:
    """A machine that runs this firmware, and the way to its mailbox.

    :param machine: started paused, with `image` as its firmware.
    """

    def __init__(self, machine: Machine, qtest: Qtest) -> None:
        self._machine = machine
        self._qtest = qtest

    def read(self, address: int, count: int = 1, *, timeout: float = 30) -> int:
        """Let the vCPU read the 32-bit word at *address* *count* times; return the last value.

        :param address: below 4 GiB.
        :raise WaitTimeout: it did not in *timeout* seconds.
        """
        self._qtest.run(
            [f"writel {MAILBOX:#x} {address:#x}", f"writel {MAILBOX + 4:#x} {count:#x}"]
        )
        self._machine.qmp.execute("cont")
        try:
            wait_until(
                f"{count} reads at {address:#x}",
                lambda: self._qtest.read(MAILBOX + 4) == 0,
                timeout=timeout,
                guards=(self._machine.check,),
                interval=0.005,
                last_seen=lambda: self._machine.qmp.hmp("info registers")[:800],
            )
        finally:
            self._machine.qmp.execute("stop")
        return self._qtest.read(MAILBOX + 8)

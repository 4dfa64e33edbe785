"""A firmware of 110 bytes that reads and writes what it is told: accesses of a vCPU, no guest.

Given as ``-bios``, it goes to flat 32-bit mode and waits for work in a mailbox in RAM, without
an exit. Work is given over qtest, which QEMU serves beside every accelerator. So one word can be
read or written N times by a vCPU of a machine that has no operating system, and nothing else runs
that could disturb the counts (procedure P-TRAP in a third of a second). The vCPU runs while there
is work only: it waits by spinning.

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
"""Address, count, value (the last that was read, or what is to be written), whether to write:
32 bits each."""
_COUNT, _VALUE, _WRITE = MAILBOX + 4, MAILBOX + 8, MAILBOX + 12

# fmt: off
_CODE: Final = bytes.fromhex(
    "fa"                    # cli
    "2e660f011668ff"        # lgdtl %cs:0xff68
    "0f20c0" "0c01" "0f22c0"  # CR0.PE = 1
    "66ea18ffffff0800"      # ljmpl $8, 1f
    "66b81000" "8ed8"       # 1: %ds = 16, all of memory
    "bb00700000"            # %ebx = MAILBOX
    "8b4b04"                # 2: %ecx = count
    "e3fb"                  # nothing to do: 2b
    "8b33"                  # %esi = address
    "8b4308"                # %eax = value
    "837b0c00" "750a"       # to be written: 4f
    "8b06"                  # 3: read it
    "49" "75fb"             # %ecx times
    "894308"                # the last value
    "eb05"                  # 5f
    "8906"                  # 4: write it
    "49" "75fb"             # %ecx times
    "c7430400000000"        # 5: count = 0: done
    "ebd8"                  # 2b
    "8d74260090"            # (nothing)
    "0000000000000000"      # no segment
    "ffff0000009bcf00"      # 8: code, flat
    "ffff00000093cf00"      # 16: data, flat
    "1700" "50ffffff"       # limit and place of these three
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
        self._work(f"{count} reads at {address:#x}", timeout,
                   (MAILBOX, address), (_WRITE, 0), (_COUNT, count))  # fmt: skip
        return self._qtest.read(_VALUE)

    def write(self, address: int, value: int, count: int = 1, *, timeout: float = 30) -> None:
        """Let the vCPU write the 32-bit word *value* to *address* *count* times.

        :param address: below 4 GiB.
        :raise WaitTimeout: it did not in *timeout* seconds.
        """
        self._work(f"{count} writes at {address:#x}", timeout,
                   (MAILBOX, address), (_VALUE, value), (_WRITE, 1), (_COUNT, count))  # fmt: skip

    def _work(self, what: str, timeout: float, *words: tuple[int, int]) -> None:
        """Fill the mailbox, the count last, and let the vCPU run until it is done."""
        self._qtest.run([f"writel {at:#x} {word:#x}" for at, word in words])
        self._machine.qmp.execute("cont")
        try:
            wait_until(
                what,
                lambda: self._qtest.read(_COUNT) == 0,
                timeout=timeout,
                guards=(self._machine.check,),
                interval=0.005,
                last_seen=lambda: self._machine.qmp.hmp("info registers")[:800],
            )
        finally:
            self._machine.qmp.execute("stop")

"""A client of QEMU's qtest protocol: ports and memory of a machine without a processor.

One line a command, one line an answer (QEMU ``system/qtest.c``). Commands may be sent in one
piece; QEMU answers them in order.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from harness.errors import MachineDied, QmpFailed

Width = Literal[1, 2, 4, 8]

_LETTER: Final[dict[int, str]] = {1: "b", 2: "w", 4: "l", 8: "q"}
CONFIG_ADDRESS: Final = 0xCF8
CONFIG_DATA: Final = 0xCFC


class Qtest:
    """One qtest session over a connected stream, which it closes.

    :param timeout: seconds that an answer may take.
    """

    def __init__(self, stream: socket.socket, *, name: str = "QEMU", timeout: float = 30) -> None:
        self._stream = stream
        self._stream.settimeout(timeout)
        self._timeout = timeout
        self._name = name
        self._rest = b""

    def close(self) -> None:
        """End the session; QEMU goes on."""
        self._stream.close()

    def run(self, commands: Sequence[str]) -> list[str]:
        """Give *commands* at once; return what follows ``OK`` in each answer.

        :raise QmpFailed: QEMU does not know one, or does not answer in time.
        :raise MachineDied: the connection ended.
        """
        if not commands:
            return []
        try:
            self._stream.sendall("".join(f"{command}\n" for command in commands).encode())
        except OSError as error:
            raise MachineDied(f"{self._name}: qtest: {error}", evidence=None) from error
        return [self._answer(command) for command in commands]

    def _answer(self, command: str) -> str:
        while True:
            line = self._line(command)
            if line.startswith("IRQ "):  # an interrupt somebody asked to hear of
                continue
            word, _, value = line.partition(" ")
            if word != "OK":
                raise QmpFailed(
                    f"{self._name}: qtest refused {command!r}", description=line, evidence=None
                )
            return value

    def _line(self, command: str) -> str:
        while b"\n" not in self._rest:
            try:
                piece = self._stream.recv(65536)
            except TimeoutError as error:
                raise QmpFailed(
                    f"{self._name}: no answer to {command!r} within {self._timeout:g} s",
                    description="QEMU is alive but its main loop does not answer",
                    evidence=None,
                ) from error
            except OSError:
                piece = b""
            if not piece:
                raise MachineDied(
                    f"{self._name}: the qtest connection ended during {command!r}", evidence=None
                )
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def out(self, port: int, value: int, width: Width = 4) -> None:
        """Write to a port."""
        self.run([out(port, value, width)])

    def in_(self, port: int, width: Width = 4) -> int:
        """Read a port."""
        return int(self.run([f"in{_LETTER[width]} {port:#x}"])[0], 16)

    def write(self, address: int, value: int, width: Width = 4) -> None:
        """Write to memory."""
        self.run([f"write{_LETTER[width]} {address:#x} {value:#x}"])

    def read(self, address: int, width: Width = 4) -> int:
        """Read memory."""
        return int(self.run([f"read{_LETTER[width]} {address:#x}"])[0], 16)

    def put(self, address: int, data: bytes) -> None:
        """Write *data* to memory, some bytes at least."""
        self.run([f"write {address:#x} {len(data):#x} 0x{data.hex()}"])

    def get(self, address: int, count: int) -> bytes:
        """Read *count* bytes of memory, one at least."""
        return bytes.fromhex(self.run([f"read {address:#x} {count:#x}"])[0].removeprefix("0x"))

    def config_read(
        self, bus: int, slot: int, function: int, offset: int, width: Width = 4
    ) -> int:
        """Read configuration space by mechanism 1 (the first 256 bytes)."""
        ask = f"in{_LETTER[width]} {CONFIG_DATA + (offset & 3):#x}"
        return int(self.run([_select(bus, slot, function, offset), ask])[-1], 16)

    def config_write(
        self, bus: int, slot: int, function: int, offset: int, value: int, width: Width = 4
    ) -> None:
        """Write configuration space by mechanism 1 (the first 256 bytes)."""
        self.run(config_write(bus, slot, function, offset, value, width))


def out(port: int, value: int, width: int = 4) -> str:
    """Return the command that writes to a port."""
    return f"out{_LETTER[width]} {port:#x} {value:#x}"


def config_write(
    bus: int, slot: int, function: int, offset: int, value: int, width: int = 4
) -> list[str]:
    """Return the commands that write configuration space by mechanism 1."""
    return [
        _select(bus, slot, function, offset),
        out(CONFIG_DATA + (offset & 3), value, width),
    ]


def join(batches: Iterable[Sequence[str]]) -> list[str]:
    """Return the commands of all *batches*, in order."""
    return [command for batch in batches for command in batch]


def _select(bus: int, slot: int, function: int, offset: int) -> str:
    where = 1 << 31 | bus << 16 | slot << 11 | function << 8 | offset & 0xFC
    return out(CONFIG_ADDRESS, where)

"""Admin commands of an NVMe controller that has Linux's driver (NVMe 1.4, 5.x and 8.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.errors import HostError
from harness.guest.system import System
from harness.model.pci import Bdf

IDENTIFY, ATTACH_NAMESPACE, VIRTUALIZATION = 0x06, 0x15, 0x1C
_SECONDARY_LIST: Final = 0x15
"""CNS of Identify: secondary controllers."""
_PAGE: Final = 4096
_ENTRY: Final = 32

_RELEASE, _ASSIGN, _ONLINE = 1, 8, 9
_QUEUES, _VECTORS = 0, 1


@dataclass(frozen=True, slots=True)
class Secondary:
    """A secondary controller, which a virtual function shows (NVMe 1.4, figure 250)."""

    number: int
    """Its controller id."""
    online: bool
    queues: int
    vectors: int


@dataclass(frozen=True, slots=True)
class NvmeAdmin:
    """The controller of the function *bdf* of *system*."""

    system: System
    bdf: Bdf

    def secondaries(self) -> tuple[Secondary, ...]:
        """Return the secondary controllers, with or without virtual function."""
        said = self._admin(IDENTIFY, "--cdw10", _SECONDARY_LIST, "--data", _PAGE)
        return parse_secondaries(bytes.fromhex(said["data"]))

    def release(self) -> None:
        """Take from the controller itself what others may have; it is reset."""
        for kind in (_QUEUES, _VECTORS):
            self._virtualization(0, kind, _RELEASE, 0)
        self.system.reset(self.bdf)

    def bring_online(self, number: int, *, queues: int = 2, vectors: int = 1) -> None:
        """Give the secondary controller *number* what it needs, and let it work."""
        self._virtualization(number, _VECTORS, _ASSIGN, vectors)
        self._virtualization(number, _QUEUES, _ASSIGN, queues)
        self._virtualization(number, _QUEUES, _ONLINE, 0)

    def _virtualization(self, number: int, kind: int, action: int, count: int) -> None:
        word = number << 16 | kind << 8 | action
        said = self._admin(VIRTUALIZATION, "--cdw10", word, "--cdw11", count)
        if int(said["status"], 16):
            raise HostError(
                f"nvme {self.bdf} of {self.system.name} refuses to manage controller {number}",
                seen=f"action {action}, resource {kind}, count {count}: status {said['status']}",
                hint="status codes: NVMe 1.4, figures 126 to 130",
            )

    def _admin(self, opcode: int, *words: str | int) -> dict[str, str]:
        place = f"/sys/bus/pci/devices/{self.bdf}/nvme"
        name = self.system.list_directory(place)[0]
        return self.system.probe("nvme", "admin", f"/dev/{name}", opcode, *words)


def parse_secondaries(data: bytes) -> tuple[Secondary, ...]:
    """Read a Secondary Controller List.

    :raise ValueError: it is cut off.
    """
    end = _ENTRY * (1 + data[0]) if data else 1
    if len(data) < end:
        raise ValueError(f"{len(data)} bytes, {end} wanted")
    found = []
    for at in range(_ENTRY, end, _ENTRY):
        entry = data[at : at + _ENTRY]
        queues, vectors = (int.from_bytes(entry[n : n + 2], "little") for n in (10, 12))
        number = int.from_bytes(entry[:2], "little")
        found.append(Secondary(number, bool(entry[4] & 1), queues, vectors))
    return tuple(found)

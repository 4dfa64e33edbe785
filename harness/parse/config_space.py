"""PCI configuration space: bytes to capabilities, MSI, MSI-X and header facts.

PCI 3.0 chapter 6 and PCIe 6.0 chapter 7. Base address registers are not sized here: their
size is not in configuration space at rest; see `harness.parse.pci_sysfs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.errors import ParseError
from harness.model.pci import Capability, MsiCapability, MsixCapability, PciId

CAP_MSI: Final = 0x05
CAP_EXPRESS: Final = 0x10
CAP_MSIX: Final = 0x11
ECAP_SRIOV: Final = 0x10

_STATUS_CAPABILITIES: Final = 1 << 4
_SIZES: Final = (64, 256, 4096)


@dataclass(frozen=True, slots=True)
class ConfigSpace:
    """What configuration space says of a function."""

    id: PciId
    class_code: int
    """24 bits: class, subclass, programming interface."""
    revision: int
    header_type: int
    """0: endpoint, 1: PCI bridge, 2: CardBus bridge."""
    multifunction: bool
    command: int
    interrupt_pin: int
    interrupt_line: int
    subsystem: PciId | None
    """None for bridges."""
    capabilities: tuple[Capability, ...]
    msi: MsiCapability | None
    msix: MsixCapability | None
    total_vfs: int
    """TotalVFs of the SR-IOV capability; 0 without one."""
    complete: bool
    """False if only the 64 bytes that everybody may read were there."""


def parse_config(
    data: bytes, where: str = "config", *, allow_truncated: bool = False
) -> ConfigSpace:
    """Read *data*: 64, 256 or 4096 bytes as sysfs ``config`` gives them.

    :param where: name of the source, for messages.
    :param allow_truncated: take 64 bytes of a function that has capabilities (what an
        unprivileged reader gets) and say nothing of them; otherwise refuse.
    :raise ParseError: size, a list with a loop, a pointer out of bounds, a dead device.
    """
    return _Reader(data, where).read(allow_truncated)


class _Reader:
    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where

    def fail(self, offset: int, summary: str) -> ParseError:
        text = self.data[offset : offset + 16].hex(" ") or "(nothing)"
        return ParseError(summary, text=text, where=f"{self.where}, offset {offset:#x}")

    def number(self, offset: int, size: int) -> int:
        if offset + size > len(self.data):
            raise self.fail(offset, f"ends at {len(self.data):#x}, inside a {size} byte register")
        return int.from_bytes(self.data[offset : offset + size], "little")

    def read(self, allow_truncated: bool) -> ConfigSpace:
        if len(self.data) not in _SIZES:
            raise self.fail(0, f"{len(self.data)} bytes of configuration space, not 64, 256, 4096")
        vendor = self.number(0, 2)
        if vendor == 0xFFFF:
            raise self.fail(0, "vendor id reads ffff: the device does not answer")
        header = self.number(0x0E, 1) & 0x7F
        if header > 2:
            raise self.fail(0x0E, f"unknown header type {header:#x}")
        listed = bool(self.number(0x06, 2) & _STATUS_CAPABILITIES)
        complete = len(self.data) > 64 or not listed
        if not complete and not allow_truncated:
            raise self.fail(0x34, "only 64 bytes, capabilities are cut off (read it as root)")

        capabilities: tuple[Capability, ...] = ()
        if listed and len(self.data) > 64:
            capabilities = self.standard(0x14 if header == 2 else 0x34)
        if len(self.data) == 4096:
            capabilities += self.extended()
        return ConfigSpace(
            id=PciId(vendor, self.number(2, 2)),
            class_code=self.number(0x08, 4) >> 8,
            revision=self.number(0x08, 1),
            header_type=header,
            multifunction=bool(self.number(0x0E, 1) & 0x80),
            command=self.number(0x04, 2),
            interrupt_pin=self.number(0x3D, 1),
            interrupt_line=self.number(0x3C, 1),
            subsystem=PciId(self.number(0x2C, 2), self.number(0x2E, 2)) if not header else None,
            capabilities=capabilities,
            msi=self.msi(capabilities),
            msix=self.msix(capabilities),
            total_vfs=self.total_vfs(capabilities),
            complete=complete,
        )

    def standard(self, pointer: int) -> tuple[Capability, ...]:
        found: list[Capability] = []
        seen: set[int] = set()
        offset = self.number(pointer, 1) & ~3
        while offset:
            if offset < 0x40:
                raise self.fail(pointer, f"capability pointer {offset:#x} is inside the header")
            if offset in seen:
                raise self.fail(pointer, f"capability list loops back to {offset:#x}")
            seen.add(offset)
            cap_id = self.number(offset, 1)
            if cap_id == 0xFF:
                raise self.fail(offset, "capability id reads ff: the list is broken")
            found.append(Capability(cap_id, offset))
            pointer = offset + 1
            offset = self.number(pointer, 1) & ~3
        return tuple(found)

    def extended(self) -> tuple[Capability, ...]:
        found: list[Capability] = []
        seen: set[int] = set()
        source, offset = 0x100, 0x100
        if self.number(offset, 4) in (0, 0xFFFFFFFF):
            return ()
        while offset:
            if offset < 0x100:
                raise self.fail(source, f"extended capability pointer {offset:#x} is below 0x100")
            if offset in seen:
                raise self.fail(source, f"extended capability list loops back to {offset:#x}")
            seen.add(offset)
            head = self.number(offset, 4)
            # Linux hides a capability by writing id 0 in front of a live next pointer.
            if head & 0xFFFF:
                found.append(Capability(head & 0xFFFF, offset, extended=True))
            source, offset = offset, head >> 20 & ~3
        return tuple(found)

    def find(
        self, capabilities: tuple[Capability, ...], cap_id: int, *, extended: bool = False
    ) -> int | None:
        wanted = (cap_id, extended)
        return next((c.offset for c in capabilities if (c.id, c.extended) == wanted), None)

    def msi(self, capabilities: tuple[Capability, ...]) -> MsiCapability | None:
        offset = self.find(capabilities, CAP_MSI)
        if offset is None:
            return None
        control = self.number(offset + 2, 2)
        return MsiCapability(
            offset=offset,
            vectors=1 << (control >> 1 & 7),
            is_64bit=bool(control & 0x80),
            maskable=bool(control & 0x100),
            enabled=bool(control & 1),
        )

    def msix(self, capabilities: tuple[Capability, ...]) -> MsixCapability | None:
        offset = self.find(capabilities, CAP_MSIX)
        if offset is None:
            return None
        control = self.number(offset + 2, 2)
        table, pba = self.number(offset + 4, 4), self.number(offset + 8, 4)
        for name, register, value in (("table", 4, table), ("PBA", 8, pba)):
            if value & 7 > 5:
                raise self.fail(offset + register, f"MSI-X {name} is in BAR {value & 7}")
        return MsixCapability(
            offset=offset,
            vectors=(control & 0x7FF) + 1,
            table_bar=table & 7,
            table_offset=table & ~7,
            pba_bar=pba & 7,
            pba_offset=pba & ~7,
            enabled=bool(control & 0x8000),
        )

    def total_vfs(self, capabilities: tuple[Capability, ...]) -> int:
        offset = self.find(capabilities, ECAP_SRIOV, extended=True)
        return 0 if offset is None else self.number(offset + 0x0E, 2)

"""The configuration space of a device: built from its declaration, read and written by clients.

Every bit is read-only, writable or write-1-to-clear, as in hardware; sizing of base address
registers falls out of that. Writes that mean something (a reset, a power state) are reported
to who asked.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from harness.device.spec import (
    AerSpec,
    BarSpec,
    ExpressSpec,
    MsiSpec,
    MsixSpec,
    PowerSpec,
    RawCapability,
)
from harness.errors import ConfigError
from harness.model.pci import BarKind, PciId

_NO_SUBSYSTEM: Final = PciId(0, 0)

CAP_POWER: Final = 0x01
CAP_MSI: Final = 0x05
CAP_EXPRESS: Final = 0x10
CAP_MSIX: Final = 0x11
ECAP_AER: Final = 0x01

COMMAND: Final = 0x04
STATUS: Final = 0x06
FIRST_CAPABILITY: Final = 0x40
FIRST_EXTENDED: Final = 0x100
CONVENTIONAL_SIZE: Final = 256
EXPRESS_SIZE: Final = 4096

_COMMAND_WRITABLE: Final = 0x0547  # I/O, memory, master, parity, SERR, INTx disable
_STATUS_CAPABILITIES: Final = 0x10
_STATUS_CLEARS: Final = 0xF900
_START_FLR: Final = 0x8000


class Effect(enum.Enum):
    """What a write to configuration space sets off."""

    FLR = "flr"
    POWER_RESET = "power"
    """It left D3hot, and has no No_Soft_Reset."""


@dataclass(slots=True)
class ConfigSpace:
    """Bytes with two masks of the same length, and where the capabilities are."""

    data: bytearray
    writable: bytearray
    clears: bytearray
    """Bits that a 1 clears."""
    places: dict[tuple[int, bool], int] = field(default_factory=dict)
    """Offset by capability id and whether it is an extended one."""
    power_resets: bool = False
    first: bytes = b""
    """What it was made with; resets go back to it."""

    def read(self, offset: int, count: int) -> bytes:
        """Return *count* bytes; those past the end are left out."""
        return bytes(self.data[offset : offset + count])

    def write(self, offset: int, value: bytes) -> tuple[Effect, ...]:
        """Store what is writable of *value*, and say what that sets off."""
        before = self._power_state()
        for at, byte in enumerate(value, offset):
            writable = self.writable[at]
            kept = self.data[at] & ~writable | byte & writable
            self.data[at] = kept & ~(byte & self.clears[at])
        return tuple(self._effects(before))

    def reset(self) -> None:
        """Go back to the state after power-on."""
        self.data[:] = self.first

    def _power_state(self) -> int:
        power = self.places.get((CAP_POWER, False))
        return 0 if power is None else self.data[power + 4] & 3

    def _effects(self, before: int) -> Iterator[Effect]:
        express = self.places.get((CAP_EXPRESS, False))
        if express is not None:
            control = express + 9
            if self.data[control] & (_START_FLR >> 8):
                self.data[control] &= 0xFF ^ (_START_FLR >> 8)
                yield Effect.FLR
        if self.power_resets and before == 3 and self._power_state() == 0:
            yield Effect.POWER_RESET


@dataclass(frozen=True, slots=True)
class Identity:
    """The fixed part of a type 0 header."""

    id: PciId
    class_code: int
    revision: int = 0
    subsystem: PciId = _NO_SUBSYSTEM
    interrupt_pin: int = 0
    rom_size: int = 0
    """A power of two of at least 2048, or 0."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What is in the two capability lists, in this order."""

    power: PowerSpec | None = None
    msi: MsiSpec | None = None
    express: ExpressSpec | None = None
    msix: MsixSpec | None = None
    aer: AerSpec | None = None
    others: tuple[RawCapability, ...] = ()


def build(
    identity: Identity, bars: tuple[BarSpec, ...], capabilities: Capabilities
) -> ConfigSpace:
    """Return the configuration space of such a device: 4096 bytes with PCI Express, else 256.

    :raise ConfigError: the capabilities do not fit, or overlap.
    """
    express = capabilities.express is not None
    return _Builder(EXPRESS_SIZE if express else CONVENTIONAL_SIZE).build(
        identity, bars, capabilities
    )


class _Builder:
    def __init__(self, size: int) -> None:
        self.size = size
        self.space = ConfigSpace(bytearray(size), bytearray(size), bytearray(size))
        self.taken: list[tuple[int, int]] = []

    def build(
        self, identity: Identity, bars: tuple[BarSpec, ...], caps: Capabilities
    ) -> ConfigSpace:
        self.header(identity)
        for bar in bars:
            self.bar(bar)
        bodies = list(_standard(caps))
        raw = [c for c in caps.others if not c.extended]
        self.chain(bodies + raw)
        extended = [_aer(caps.aer)] if caps.aer is not None else []
        self.extended_chain(extended + [c for c in caps.others if c.extended])
        self.space.power_resets = caps.power is not None and caps.power.soft_reset
        self.space.first = bytes(self.space.data)
        return self.space

    def put(self, at: int, width: int, value: int, writable: int = 0, clears: int = 0) -> None:
        self.space.data[at : at + width] = value.to_bytes(width, "little")
        self.space.writable[at : at + width] = writable.to_bytes(width, "little")
        self.space.clears[at : at + width] = clears.to_bytes(width, "little")

    def header(self, identity: Identity) -> None:
        self.put(0x00, 2, identity.id.vendor)
        self.put(0x02, 2, identity.id.device)
        self.put(COMMAND, 2, 0, _COMMAND_WRITABLE)
        self.put(STATUS, 2, 0, clears=_STATUS_CLEARS)
        self.put(0x08, 4, identity.class_code << 8 | identity.revision)
        self.put(0x0C, 2, 0, 0xFFFF)  # cache line size, latency timer
        self.put(0x2C, 2, identity.subsystem.vendor)
        self.put(0x2E, 2, identity.subsystem.device)
        if identity.rom_size:
            self.put(0x30, 4, 0, -identity.rom_size & 0xFFFF_F800 | 1)
        self.put(0x3C, 1, 0, 0xFF)
        self.put(0x3D, 1, identity.interrupt_pin)

    def bar(self, bar: BarSpec) -> None:
        at = 0x10 + 4 * bar.index
        sizing = -bar.size if bar.size else 0
        if bar.kind is BarKind.IO:
            self.put(at, 4, 1, sizing & 0xFFFF_FFFC)
            return
        low = 8 if bar.prefetchable else 0
        if bar.kind is BarKind.MEM64:
            self.put(at, 8, low | 4, sizing & 0xFFFF_FFFF_FFFF_FFF0)
        else:
            self.put(at, 4, low, sizing & 0xFFFF_FFF0)

    def chain(self, capabilities: list[RawCapability]) -> None:
        pointer = 0x34
        following = FIRST_CAPABILITY
        for capability in capabilities:
            at = following if capability.at is None else capability.at
            end = at + 2 + len(capability.body)
            self.claim(capability, at, end, CONVENTIONAL_SIZE)
            self.space.data[pointer] = at
            self.space.data[at] = capability.id
            self.body(capability, at + 2)
            self.space.data[STATUS] |= _STATUS_CAPABILITIES
            pointer, following = at + 1, max(following, (end + 3) & ~3)

    def extended_chain(self, capabilities: list[RawCapability]) -> None:
        previous: int | None = None
        following = FIRST_EXTENDED
        for capability in capabilities:
            at = following if capability.at is None else capability.at
            if previous is None and at != FIRST_EXTENDED:
                raise ConfigError(
                    f"extended capability {capability.id:#x}: the first one is at 0x100"
                )
            end = at + 4 + len(capability.body)
            self.claim(capability, at, end, self.size)
            self.put(at, 4, capability.id | capability.version << 16)
            if previous is not None:
                self.space.data[previous + 2] |= (at & 0xF) << 4
                self.space.data[previous + 3] = at >> 4
            self.body(capability, at + 4)
            previous, following = at, max(following, (end + 3) & ~3)

    def claim(self, capability: RawCapability, at: int, end: int, limit: int) -> None:
        if end > limit or any(at < e and s < end for s, e in self.taken):
            raise ConfigError(
                f"capability {capability.id:#x} at {at:#x} does not fit",
                hint="give it another place (at=…), or PCI Express for extended capabilities",
            )
        self.taken.append((at, end))
        self.space.places.setdefault((capability.id, capability.extended), at)

    def body(self, capability: RawCapability, at: int) -> None:
        body = capability.body
        self.space.data[at : at + len(body)] = body
        mask = capability.writable[: len(body)].ljust(len(body), b"\0")
        self.space.writable[at : at + len(body)] = mask
        if not capability.extended and capability.id == CAP_POWER:
            self.space.clears[at + 3] = 0x80  # PME status
        if not capability.extended and capability.id == CAP_EXPRESS:
            self.space.clears[at + 8] = 0x0F  # Device Status: errors seen
        if capability.extended and capability.id == ECAP_AER:
            self.space.clears[at : at + 4] = b"\xff\xff\xff\xff"
            self.space.clears[at + 12 : at + 16] = b"\xff\xff\xff\xff"


def _pack(*parts: tuple[int, int]) -> bytes:
    return b"".join(value.to_bytes(width, "little") for value, width in parts)


def _standard(caps: Capabilities) -> Iterator[RawCapability]:
    if caps.power is not None:
        control = 0 if caps.power.soft_reset else 8
        yield RawCapability(
            CAP_POWER,
            _pack((0x0003, 2), (control, 2), (0, 2)),
            _pack((0, 2), (0x0103, 2), (0, 2)),
            at=caps.power.at,
        )
    if caps.msi is not None:
        yield _msi(caps.msi)
    if caps.express is not None:
        yield _express(caps.express)
    if caps.msix is not None:
        msix = caps.msix
        yield RawCapability(
            CAP_MSIX,
            _pack(
                (msix.vectors - 1, 2),
                (msix.table_offset | msix.table_bar, 4),
                (msix.pba_offset | msix.pba_bar, 4),
            ),
            _pack((0xC000, 2), (0, 8)),
            at=msix.at,
        )


def _msi(msi: MsiSpec) -> RawCapability:
    control = (msi.vectors - 1).bit_length() << 1 | msi.is_64bit << 7 | msi.maskable << 8
    address = 8 if msi.is_64bit else 4
    writable = [(0x0071, 2), (0xFFFF_FFFF_FFFF_FFFC % (1 << 8 * address), address), (0xFFFF, 2)]
    body = [(control, 2), (0, address), (0, 2)]
    if msi.maskable:
        body += [(0, 2), (0, 4), (0, 4)]
        writable += [(0, 2), ((1 << msi.vectors) - 1, 4), (0, 4)]
    return RawCapability(CAP_MSI, _pack(*body), _pack(*writable), at=msi.at)


def _express(express: ExpressSpec) -> RawCapability:
    flags = 2 | express.device_type << 4
    capable = 0x8000 | express.flr << 28
    body = [(flags, 2), (capable, 4), (0x2810, 2), (0, 2)]
    writable = [(0, 6), (0x7FFF | express.flr << 15, 2), (0, 2)]
    if express.device_type == 9:  # no link of its own
        body += [(0, 8)]
        writable += [(0, 8)]
    else:
        body += [(0x0000_0011, 4), (0, 2), (0x0011, 2)]  # 2.5 GT/s, one lane
        writable += [(0, 4), (0x0FCB, 2), (0, 2)]
    body += [(0, 16), (0, 4), (0, 2), (0, 2), (0, 8), (0, 8)]
    writable += [(0, 16), (0, 4), (0x001F, 2), (0, 2), (0, 8), (0, 8)]
    return RawCapability(CAP_EXPRESS, _pack(*body), _pack(*writable), at=express.at)


def _aer(aer: AerSpec) -> RawCapability:
    body = [(0, 4), (aer.uncorrectable_mask, 4), (aer.uncorrectable_severity, 4)]
    body += [(0, 4), (aer.correctable_mask, 4), (0, 4), (0, 16), (0, 12)]
    writable = [(0, 4), (0x07FF_F030, 4), (0x07FF_F030, 4), (0, 4), (0x0000_F1C1, 4), (0, 32)]
    return RawCapability(
        ECAP_AER, _pack(*body), _pack(*writable), extended=True, version=2, at=aer.at
    )

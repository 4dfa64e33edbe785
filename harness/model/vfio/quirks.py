"""Windows that QEMU lays over BARs of particular devices, as a table.

QEMU ``hw/vfio/pci-quirks.c`` and ``igd.c``. Only windows inside BARs are here; those in the
legacy VGA ranges (``vfio-ati-3c3-quirk``, ``vfio-nvidia-3d4-quirk``) lie in no BAR.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from harness.model.address import AddressRange
from harness.model.pci import BarKind, PciFunction
from harness.model.row_rule import RowRule
from harness.model.version import QemuVersion

_NVIDIA: Final = 0x10DE
_ATI: Final = 0x1002
_INTEL: Final = 0x8086
_REALTEK: Final = 0x10EC


@dataclass(frozen=True, slots=True)
class QuirkContext:
    """What a quirk's probe function looks at."""

    function: PciFunction
    qemu: QemuVersion
    vga: bool
    """``x-vga=on``."""
    no_geforce_quirks: bool
    """``x-no-geforce-quirks=on``."""
    igd_gms: bool
    """``x-igd-gms`` is given."""
    nvidia_window: bool
    """The guest has opened the configuration window in BAR 5."""

    def has_bar(self, index: int, kind: BarKind) -> bool:
        """Say whether BAR *index* is there and of this kind."""
        return any(bar.index == index and bar.kind is kind for bar in self.function.bars)

    @property
    def geforce(self) -> bool:
        """Say whether NVIDIA quirks apply; the option came with db32d0f438 (2.12)."""
        return self.function.id.vendor == _NVIDIA and not self.no_geforce_quirks

    @property
    def igd_generation(self) -> int:
        """Generation of an Intel graphics function, -1 if it gets no window (``igd_gen()``)."""
        function = self.function
        # 10.1 takes every display class, before it was VGA only.
        wanted = function.class_code >> 16 == 3 if self.qemu.has(10, 1) else function.is_vga
        if function.id.vendor != _INTEL or not wanted:
            return -1
        if function.id.device & 0xFFE == 0xA84:
            return 9
        return _IGD_GENERATIONS.get(function.id.device >> 8, -1)


@dataclass(frozen=True, slots=True)
class QuirkWindow:
    """A window over a BAR: i/o, and above what the BAR maps."""

    bar: int
    range: AddressRange
    """Inside the BAR."""
    name: str
    rule: RowRule


@dataclass(frozen=True, slots=True)
class _Quirk:
    bar: int
    offset: int
    size: Callable[[QuirkContext], int]
    name: str
    rule: RowRule
    applies: Callable[[QuirkContext], bool]


def quirk_windows(context: QuirkContext) -> tuple[QuirkWindow, ...]:
    """Return the windows of a function, those that QEMU adds later (and so puts on top) last."""
    return tuple(
        QuirkWindow(
            quirk.bar, AddressRange(quirk.offset, quirk.size(context)), quirk.name, quirk.rule
        )
        for quirk in _QUIRKS
        if quirk.applies(context)
    )


def _bytes(count: int) -> Callable[[QuirkContext], int]:
    return lambda _: count


def _ati_ports(c: QuirkContext) -> bool:
    return c.function.id.vendor == _ATI and c.vga and c.has_bar(4, BarKind.IO)


def _ati_mirror(c: QuirkContext) -> bool:
    return c.function.id.vendor == _ATI and c.vga and c.has_bar(2, BarKind.MEM64)


def _nvidia_ports(c: QuirkContext) -> bool:
    return c.geforce and c.vga and c.has_bar(5, BarKind.IO)


def _nvidia_window(c: QuirkContext) -> bool:
    return _nvidia_ports(c) and c.nvidia_window


def _nvidia_mirror(c: QuirkContext) -> bool:
    return c.geforce and c.function.is_vga


def _rtl8168(c: QuirkContext) -> bool:
    return (c.function.id.vendor, c.function.id.device) == (_REALTEK, 0x8168)


def _igd_ggc(c: QuirkContext) -> bool:
    # 10.0 shows it always, 10.1 only if its size is overridden.
    return c.qemu.has(10, 0) and c.igd_generation >= 6 and (c.igd_gms or not c.qemu.has(10, 1))


def _igd_bdsm(c: QuirkContext) -> bool:
    # 9.2 for generation 11 and up, 10.0 from generation 6 on.
    return c.qemu.has(9, 2) and c.igd_generation >= (6 if c.qemu.has(10, 0) else 11)


_QUIRKS: Final = (
    _Quirk(4, 0, _bytes(4), "vfio-ati-bar4-window-address-quirk", RowRule.ATI, _ati_ports),
    _Quirk(4, 4, _bytes(4), "vfio-ati-bar4-window-data-quirk", RowRule.ATI, _ati_ports),
    _Quirk(2, 0x4000, _bytes(256), "vfio-ati-bar2-4000-quirk", RowRule.ATI, _ati_mirror),
    # Both parts of the window are disabled until the guest turns it on with the two below.
    _Quirk(
        5,
        8,
        _bytes(4),
        "vfio-nvidia-bar5-window-address-quirk",
        RowRule.NVIDIA_BAR5,
        _nvidia_window,
    ),
    _Quirk(
        5, 12, _bytes(4), "vfio-nvidia-bar5-window-data-quirk", RowRule.NVIDIA_BAR5, _nvidia_window
    ),
    _Quirk(5, 0, _bytes(4), "vfio-nvidia-bar5-master-quirk", RowRule.NVIDIA_BAR5, _nvidia_ports),
    _Quirk(5, 4, _bytes(4), "vfio-nvidia-bar5-enable-quirk", RowRule.NVIDIA_BAR5, _nvidia_ports),
    _Quirk(
        0,
        0x88000,
        lambda c: c.function.config_size,
        "vfio-nvidia-bar0-88000-mirror-quirk",
        RowRule.NVIDIA_88000,
        _nvidia_mirror,
    ),
    _Quirk(
        0,
        0x1800,
        _bytes(256),
        "vfio-nvidia-bar0-1800-mirror-quirk",
        RowRule.NVIDIA_1800,
        lambda c: _nvidia_mirror(c) and c.vga,
    ),
    _Quirk(2, 0x74, _bytes(4), "vfio-rtl8168-window-address-quirk", RowRule.RTL8168, _rtl8168),
    _Quirk(2, 0x70, _bytes(4), "vfio-rtl8168-window-data-quirk", RowRule.RTL8168, _rtl8168),
    _Quirk(0, 0x108040, _bytes(2), "vfio-igd-ggc-quirk", RowRule.IGD, _igd_ggc),
    _Quirk(
        0,
        0x1080C0,
        lambda c: 4 if c.igd_generation < 11 else 8,
        "vfio-igd-bdsm-quirk",
        RowRule.IGD,
        _igd_bdsm,
    ),
)

_IGD_GENERATIONS: Final = {
    0x01: 6,  # Sandy Bridge, Ivy Bridge
    0x04: 7,  # Haswell
    0x0A: 7,
    0x0C: 7,
    0x0D: 7,
    0x0F: 7,  # Bay Trail
    0x16: 8,  # Broadwell
    0x22: 8,  # Cherry View
    0x19: 9,  # Skylake
    0x31: 9,  # Gemini Lake
    0x59: 9,  # Kaby Lake
    0x3E: 9,  # Coffee Lake
    0x9B: 9,  # Comet Lake
    0x8A: 11,  # Ice Lake
    0x45: 11,  # Elkhart Lake
    0x4E: 11,  # Jasper Lake
    0x9A: 12,  # Tiger Lake
    0x4C: 12,  # Rocket Lake
    0x46: 12,  # Alder Lake
    0xA7: 12,  # Raptor Lake
}

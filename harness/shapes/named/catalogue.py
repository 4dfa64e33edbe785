"""The named shapes: identities and layouts of devices that exist, as data.

Only what a memory map follows from is here, and what a rule looks at: no registers. Sizes are
those of the device named in ``source``; a layout that is made up to bring out one rule says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from harness.device.device import Device
from harness.device.spec import AerSpec, BarSpec, ExpressSpec, MsiSpec, MsixSpec, RawCapability
from harness.model.address import AddressRange
from harness.model.pci import BarKind, PciId
from harness.model.qat import CLASS, MUST_BE_MASKED, PF, VF

KIB: Final = 1 << 10
MIB: Final = 1 << 20

IO, MEM32, MEM64 = BarKind.IO, BarKind.MEM32, BarKind.MEM64

DISPLAY_VGA: Final = 0x030000
DISPLAY_3D: Final = 0x030200
NETWORK: Final = 0x020000
STORAGE_NVME: Final = 0x010802
ACCELERATOR: Final = 0x120000

ECAP_SRIOV: Final = 0x10
ECAP_ARI: Final = 0x0E
ECAP_REBAR: Final = 0x15


@dataclass(frozen=True, slots=True)
class NamedShape:
    """A device by name."""

    name: str
    """Short; part of the names of its regions where it is served to QEMU itself."""
    title: str
    source: str
    """Where the layout comes from."""
    id: PciId
    class_code: int
    bars: tuple[BarSpec, ...]
    msix: MsixSpec | None = None
    msi: MsiSpec | None = None
    express: ExpressSpec | None = field(default_factory=ExpressSpec)
    aer: AerSpec | None = None
    capabilities: tuple[RawCapability, ...] = ()
    rom: bytes = b""
    revision: int = 0
    interrupt_pin: int = 0

    def device(self) -> Device:
        """Return a new device of this shape; its registers are plain memory."""
        return _Named(self)


class _Named(Device):
    def __init__(self, shape: NamedShape) -> None:
        for name in _FIELDS:
            setattr(self, name, getattr(shape, name))
        super().__init__()


_FIELDS: Final = (
    "id", "class_code", "bars", "msix", "msi", "express", "aer", "capabilities", "rom",
    "revision", "interrupt_pin",
)  # fmt: skip


def whole(index: int, kind: BarKind, size: int, *, prefetchable: bool = False) -> BarSpec:
    """Return a BAR that may be mapped wholly; one of ports may not."""
    return BarSpec(index, kind, size, prefetchable, direct=kind is not IO)


def _rom(size: int) -> bytes:
    """Return an expansion ROM of *size* bytes whose bytes tell where they are."""
    head = b"\x55\xaa" + bytes([size // 512])
    return head + bytes(n * 7 & 0xFF for n in range(len(head), size))


def _rebar(*sizes: int) -> RawCapability:
    """Return a Resizable BAR capability for BAR 0 (PCIe 6.0, 7.8.6).

    :param sizes: powers of two that it offers, as exponents above 1 MiB; the first is set.
    """
    offered = sum(1 << (4 + size) for size in sizes)
    control = 1 << 5 | sizes[0] << 8  # one BAR, index 0
    body = offered.to_bytes(4, "little") + control.to_bytes(4, "little")
    return RawCapability(ECAP_REBAR, body, extended=True)


_SRIOV: Final = RawCapability(
    ECAP_SRIOV,
    b"".join(
        value.to_bytes(width, "little")
        for value, width in (
            (0, 4), (0, 4), (8, 2), (8, 2), (0, 2), (0, 2), (384, 2), (2, 2), (0, 2),
            (0x10CA, 2), (0x553, 4), (1, 4), *((0, 4),) * 6, (0, 4),
        )
    ),
    extended=True,
)  # fmt: skip
"""82576: 8 virtual functions, the first 384 routing ids away, every second one."""

_ALL: Final = (
    NamedShape(
        "nvme", "NVMe controller, MSI-X table among its registers",
        "QEMU hw/nvme of the lab: 65 vectors at 0x2000 of a 16 KiB BAR",
        PciId(0x1B36, 0x0010), STORAGE_NVME,
        (whole(0, MEM64, 16 * KIB),),
        MsixSpec(65, 0, 0x2000, 0, 0x3000),
    ),
    NamedShape(
        "nvme-exclusive", "NVMe controller with a BAR for MSI-X alone",
        "QEMU msix_init_exclusive_bar(): the table first, the pending bits in the second half",
        PciId(0x144D, 0xA824), STORAGE_NVME,
        (whole(0, MEM64, 32 * KIB), whole(4, MEM32, 4 * KIB)),
        MsixSpec(33, 4, 0, 4, 0x800),
    ),
    NamedShape(
        "nvme-pages", "NVMe controller with a table of several pages",
        "made up: 513 vectors, 0x2010 bytes, from the middle of a page on",
        PciId(0x1E0F, 0x0013), STORAGE_NVME,
        (whole(0, MEM64, 64 * KIB),),
        MsixSpec(513, 0, 0x3800, 0, 0x6000),
    ),
    NamedShape(
        "xl710", "Ethernet controller XL710 for 40GbE QSFP+",
        "lspci of 03:00.3 in ZH: BARs 0 and 3, 129 vectors, PBA at BAR 3 + 0x1000, rev 02",
        PciId(0x8086, 0x1583), NETWORK,
        (whole(0, MEM64, 8 * MIB, prefetchable=True),
         whole(3, MEM64, 32 * KIB, prefetchable=True)),
        MsixSpec(129, 3, 0, 3, 0x1000, at=0x70),
        express=ExpressSpec(at=0xA0), revision=2, interrupt_pin=1,
    ),
    NamedShape(
        "xl710-pba-apart", "the same with its PBA in a BAR of its own",
        "made up: where vfio-user-pci lays its window over the PBA, BAR 3 is as ZH has it",
        PciId(0x8086, 0x1583), NETWORK,
        (whole(0, MEM64, 8 * MIB, prefetchable=True),
         whole(3, MEM64, 32 * KIB, prefetchable=True),
         whole(5, MEM32, 4 * KIB)),
        MsixSpec(129, 3, 0, 5, 0, at=0x70),
        express=ExpressSpec(at=0xA0), revision=2,
    ),
    NamedShape(
        "igb-pf", "82576 Gigabit, physical function",
        "QEMU hw/net/igb.c; SR-IOV and ARI as the data sheet has them",
        PciId(0x8086, 0x10C9), NETWORK,
        (whole(0, MEM32, 128 * KIB), whole(1, MEM32, 128 * KIB), whole(2, IO, 32),
         whole(3, MEM32, 16 * KIB)),
        MsixSpec(10, 3, 0, 3, 0x2000),
        aer=AerSpec(),
        capabilities=(RawCapability(ECAP_ARI, bytes(4), extended=True), _SRIOV),
        rom=_rom(64 * KIB),
        interrupt_pin=1,
    ),
    NamedShape(
        "igb-vf", "82576 Gigabit, virtual function",
        "QEMU hw/net/igbvf.c",
        PciId(0x8086, 0x10CA), NETWORK,
        (whole(0, MEM64, 16 * KIB, prefetchable=True),
         whole(3, MEM64, 16 * KIB, prefetchable=True)),
        MsixSpec(3, 3, 0, 3, 0x2000),
    ),
    NamedShape(
        "nvidia", "NVIDIA graphics, VGA class",
        "lspci of a GP106 (GeForce GTX 1060); BAR 1 made smaller",
        PciId(0x10DE, 0x1C03), DISPLAY_VGA,
        (whole(0, MEM32, 16 * MIB), whole(1, MEM64, 16 * MIB, prefetchable=True),
         whole(3, MEM64, 32 * MIB, prefetchable=True), whole(5, IO, 128)),
        msi=MsiSpec(1), rom=_rom(64 * KIB), interrupt_pin=1,
    ),
    NamedShape(
        "nvidia-3d", "NVIDIA accelerator, 3D class",
        "lspci of a TU104GL (Tesla T4), BAR 1 made smaller, with Resizable BAR",
        PciId(0x10DE, 0x1EB8), DISPLAY_3D,
        (whole(0, MEM64, 16 * MIB, prefetchable=True),
         whole(2, MEM64, 32 * MIB, prefetchable=True)),
        MsixSpec(6, 2, 0x1FF_0000, 2, 0x1FF_8000),
        capabilities=(_rebar(4, 5, 6, 7),),
    ),
    NamedShape(
        "ati", "AMD graphics, VGA class",
        "lspci of a Cayman (Radeon HD 6970), BAR 0 made smaller",
        PciId(0x1002, 0x6718), DISPLAY_VGA,
        (whole(0, MEM64, 16 * MIB, prefetchable=True), whole(2, MEM64, 128 * KIB),
         whole(4, IO, 256)),
        msi=MsiSpec(1), rom=_rom(64 * KIB), interrupt_pin=1,
    ),
    NamedShape(
        "rtl8168", "RTL8111/8168 Gigabit",
        "lspci of 10ec:8168 rev 06 and later",
        PciId(0x10EC, 0x8168), NETWORK,
        (whole(0, IO, 256), whole(2, MEM64, 4 * KIB),
         whole(4, MEM64, 16 * KIB, prefetchable=True)),
        MsixSpec(4, 4, 0, 4, 0x800),
        revision=6, interrupt_pin=1,
    ),
    NamedShape(
        "igd-9", "Intel HD Graphics 630, generation 9",
        "lspci of 8086:5912; BAR 2 made smaller",
        PciId(0x8086, 0x5912), DISPLAY_VGA,
        (whole(0, MEM64, 16 * MIB), whole(2, MEM64, 16 * MIB, prefetchable=True),
         whole(4, IO, 64)),
        msi=MsiSpec(1), express=None, interrupt_pin=1,
    ),
    NamedShape(
        "igd-12", "Intel Xe Graphics of Tiger Lake, generation 12",
        "lspci of 8086:9a49; BAR 2 made smaller",
        PciId(0x8086, 0x9A49), DISPLAY_VGA,
        (whole(0, MEM64, 16 * MIB), whole(2, MEM64, 16 * MIB, prefetchable=True),
         whole(4, IO, 64)),
        msi=MsiSpec(1), express=None, interrupt_pin=1,
    ),
    NamedShape(
        "chelsio-vf", "Chelsio T5 virtual function: says its PBA is at 0x8000 of 8 KiB",
        "QEMU vfio_msix_early_setup()",
        PciId(0x1425, 0x5801), NETWORK,
        (whole(0, MEM64, 4 * KIB), whole(2, MEM64, 8 * KIB), whole(4, MEM64, 8 * KIB)),
        MsixSpec(8, 4, 0, 4, 0x8000),
    ),
    NamedShape(
        "kunlun-vf", "Baidu Kunlun virtual function: says its PBA is at 0x460000 of 64 KiB",
        "QEMU vfio_msix_early_setup()",
        PciId(0x1D22, 0x3685), ACCELERATOR,
        (whole(0, MEM64, 64 * KIB), whole(2, MEM64, MIB, prefetchable=True)),
        MsixSpec(16, 0, 0xB000, 0, 0x46_0000),
    ),
    NamedShape(
        "bcm57840", "NetXtreme II of the ROM denylist",
        "QEMU rom_denylist[] (hw/vfio/pci-quirks.c)",
        PciId(0x14E4, 0x168E), NETWORK,
        (whole(0, MEM64, 8 * MIB, prefetchable=True),),
        rom=_rom(64 * KIB),
    ),
    NamedShape(
        "small", "a device whose registers are less than a page, as old USB controllers",
        "made up: 256 bytes and 1 KiB; the server lets both be mapped",
        PciId(0x1234, 0x0256), 0x0C0320,
        (whole(0, MEM32, 256), whole(1, MEM32, KIB)),
        express=None, interrupt_pin=1,
    ),
    NamedShape(
        "page-64k", "a device as a kernel with 64 KiB pages gives it",
        "made up: areas by beside_table_pages() for 64 KiB, which Linux 4.6 to 4.15 says",
        PciId(0x1234, 0x6400), NETWORK,
        (BarSpec(0, MEM64, MIB, direct=(AddressRange(0, 128 * KIB),
                                        AddressRange(192 * KIB, 832 * KIB))),),
        MsixSpec(64, 0, 0x2_1000, 0, 0x2_8000),
    ),
    NamedShape(
        "qat-pf", "QuickAssist C62x, physical function",
        "release notes QAT; Linux adf_c62x_hw_data.c: BARs SRAM, PMISC, ETR, in this order",
        PF, CLASS,
        (whole(0, MEM64, 512 * KIB, prefetchable=True), whole(2, MEM64, 256 * KIB),
         whole(4, MEM64, 256 * KIB)),
        msi=MsiSpec(1, maskable=True),
        aer=AerSpec(uncorrectable_mask=MUST_BE_MASKED),
        revision=4,
    ),
    NamedShape(
        "qat-vf", "QuickAssist C62x, virtual function",
        "release notes QAT; Linux adf_c62xvf_hw_data.c: BARs ETR and PMISC; one vector; no FLR",
        VF, CLASS,
        (whole(0, MEM64, 4 * KIB), whole(2, MEM64, 4 * KIB)),
        msi=MsiSpec(1, maskable=True),
        aer=AerSpec(uncorrectable_mask=MUST_BE_MASKED),
        revision=4,
    ),
)  # fmt: skip

NAMED: Final[Mapping[str, NamedShape]] = {shape.name: shape for shape in _ALL}
"""All of them, by name."""

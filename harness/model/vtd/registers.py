"""Registers of a VT-d unit: their bits by name.

Section numbers are those of the Intel VT-d specification, revision 4.1. What QEMU's
intel-iommu must show in them is in `harness.model.vtd.expected`.
"""

from __future__ import annotations

from dataclasses import dataclass

REGISTERS_BASE = 0xFED90000
"""Where QEMU puts the registers (``Q35_HOST_BRIDGE_IOMMU_ADDR``)."""


@dataclass(frozen=True, slots=True)
class Field:
    """Some bits of a register."""

    name: str
    low: int
    width: int
    words: str

    @property
    def mask(self) -> int:
        """The bits, in place."""
        return ((1 << self.width) - 1) << self.low

    def get(self, value: int) -> int:
        """Return the field's number in the register *value*."""
        return (value & self.mask) >> self.low

    def __str__(self) -> str:
        high = self.low + self.width - 1
        bits = f"bit {self.low}" if self.width == 1 else f"bits {high}:{self.low}"
        return f"{self.name} ({bits}, {self.words})"


@dataclass(frozen=True, slots=True)
class Layout:
    """Name, place and fields of a register."""

    name: str
    offset: int
    width: int
    """Bits: 32 or 64."""
    section: str
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field:
        """Return the field called *name*.

        :raise KeyError: the register has no such field.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"{self.name} has no field {name!r}")

    def get(self, value: int, name: str) -> int:
        """Return field *name* of the register *value*."""
        return self.field(name).get(value)

    def mask(self, *names: str) -> int:
        """Return all bits of the fields *names*."""
        return sum(self.field(name).mask for name in names)

    def differences(self, seen: int, expected: int, ignore: int = 0) -> tuple[str, ...]:
        """Say field by field how *seen* differs from *expected*, outside of *ignore*."""
        changed = (seen ^ expected) & ~ignore
        found = [
            f"{self.name}.{field} is {field.get(seen):#x}, expected {field.get(expected):#x}"
            for field in self.fields
            if changed & field.mask
        ]
        reserved = changed & ~sum(field.mask for field in self.fields)
        if reserved:
            found.append(
                f"{self.name}: bits without a name {reserved:#x} are "
                f"{seen & reserved:#x}, expected {expected & reserved:#x}"
            )
        return tuple(found)


VER = Layout(
    "VER",
    0x00,
    32,
    "11.4.1",
    (
        Field("MIN", 0, 4, "minor version"),
        Field("MAX", 4, 4, "major version"),
    ),
)

CAP = Layout(
    "CAP",
    0x08,
    64,
    "11.4.2",
    (
        Field("ND", 0, 3, "number of domains, 2^(4 + 2 ND)"),
        Field("AFL", 3, 1, "advanced fault logging"),
        Field("RWBF", 4, 1, "write buffer flushing required"),
        Field("PLMR", 5, 1, "protected low memory"),
        Field("PHMR", 6, 1, "protected high memory"),
        Field("CM", 7, 1, "caching mode"),
        Field("SAGAW", 8, 5, "supported guest address widths"),
        Field("MGAW", 16, 6, "maximum guest address width, less one"),
        Field("ZLR", 22, 1, "zero length read"),
        Field("FRO", 24, 10, "fault recording registers, offset in 16 bytes"),
        Field("SSLPS", 34, 4, "second-stage large pages"),
        Field("PSI", 39, 1, "page selective invalidation"),
        Field("NFR", 40, 8, "number of fault recording registers, less one"),
        Field("MAMV", 48, 6, "maximum address mask"),
        Field("DWD", 54, 1, "write draining"),
        Field("DRD", 55, 1, "read draining"),
        Field("FS1GP", 56, 1, "first-stage 1 GiB pages"),
        Field("PI", 59, 1, "posted interrupts"),
        Field("FS5LP", 60, 1, "first-stage 5-level paging"),
        Field("ECMDS", 61, 1, "enhanced commands"),
        Field("ESIRTPS", 62, 1, "setting the interrupt table pointer invalidates"),
        Field("ESRTPS", 63, 1, "setting the root table pointer invalidates"),
    ),
)

ECAP = Layout(
    "ECAP",
    0x10,
    64,
    "11.4.3",
    (
        Field("C", 0, 1, "page walks are coherent"),
        Field("QI", 1, 1, "queued invalidation"),
        Field("DT", 2, 1, "device TLB"),
        Field("IR", 3, 1, "interrupt remapping"),
        Field("EIM", 4, 1, "extended interrupt mode"),
        Field("PT", 6, 1, "pass-through"),
        Field("SC", 7, 1, "snoop control"),
        Field("IRO", 8, 10, "IOTLB registers, offset in 16 bytes"),
        Field("MHMV", 20, 4, "maximum handle mask"),
        Field("NEST", 26, 1, "nested translation"),
        Field("PRS", 29, 1, "page requests"),
        Field("ERS", 30, 1, "execute requests"),
        Field("SRS", 31, 1, "supervisor requests"),
        Field("NWFS", 33, 1, "no write flag"),
        Field("EAFS", 34, 1, "extended accessed flag"),
        Field("PSS", 35, 5, "PASID size, less one"),
        Field("PASID", 40, 1, "process address space ids"),
        Field("DIT", 41, 1, "device TLB invalidation throttle"),
        Field("PDS", 42, 1, "page request drain"),
        Field("SMTS", 43, 1, "scalable mode"),
        Field("VCS", 44, 1, "virtual commands"),
        Field("SSADS", 45, 1, "second-stage accessed and dirty bits"),
        Field("SSTS", 46, 1, "second-stage translation"),
        Field("FSTS", 47, 1, "first-stage translation"),
        Field("SMPWCS", 48, 1, "scalable-mode page walk coherency"),
        Field("RPS", 49, 1, "RID-PASID"),
        Field("PMS", 51, 1, "performance monitoring"),
        Field("ADMS", 52, 1, "abort DMA mode"),
        Field("RPRIVS", 53, 1, "RID privilege"),
    ),
)

GSTS = Layout(
    "GSTS",
    0x1C,
    32,
    "11.4.4.2",
    (
        Field("CFIS", 23, 1, "compatibility format interrupts pass"),
        Field("IRTPS", 24, 1, "interrupt table pointer is set"),
        Field("IRES", 25, 1, "interrupt remapping is on"),
        Field("QIES", 26, 1, "queued invalidation is on"),
        Field("WBFS", 27, 1, "write buffer flush runs"),
        Field("AFLS", 28, 1, "advanced fault logging is on"),
        Field("FLS", 29, 1, "fault log pointer is set"),
        Field("RTPS", 30, 1, "root table pointer is set"),
        Field("TES", 31, 1, "translation is on"),
    ),
)

FSTS = Layout(
    "FSTS",
    0x34,
    32,
    "11.4.7.1",
    (
        Field("PFO", 0, 1, "primary fault overflow"),
        Field("PPF", 1, 1, "primary fault pending"),
        Field("AFO", 2, 1, "advanced fault overflow"),
        Field("APF", 3, 1, "advanced fault pending"),
        Field("IQE", 4, 1, "invalidation queue error"),
        Field("ICE", 5, 1, "invalidation completion error"),
        Field("ITE", 6, 1, "invalidation time-out"),
        Field("PRO", 7, 1, "page request overflow"),
        Field("FRI", 8, 8, "index of the first pending fault record"),
    ),
)


@dataclass(frozen=True, slots=True)
class Version:
    """The version register (11.4.1)."""

    value: int

    @property
    def major(self) -> int:
        """Architecture major version."""
        return VER.get(self.value, "MAX")

    @property
    def minor(self) -> int:
        """Architecture minor version."""
        return VER.get(self.value, "MIN")

    def __str__(self) -> str:
        """Print as Linux does in ``/sys/class/iommu/dmar0/intel-iommu/version``."""
        return f"{self.major}:{self.minor}"


@dataclass(frozen=True, slots=True)
class Capability:
    """The capability register (11.4.2)."""

    value: int

    @property
    def caching_mode(self) -> bool:
        """CM: not-present entries may be cached; the guest must invalidate after mapping."""
        return bool(CAP.get(self.value, "CM"))


@dataclass(frozen=True, slots=True)
class GlobalStatus:
    """The global status register (11.4.4.2)."""

    value: int

    @property
    def translating(self) -> bool:
        """TES: DMA is translated."""
        return bool(GSTS.get(self.value, "TES"))

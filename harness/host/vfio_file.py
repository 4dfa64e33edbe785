"""A function as user space sees it through the vfio interface, without any QEMU.

Every call opens the device and closes it again (``probe vfio``), so the function must be bound
to vfio-pci and in no machine.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import ParseError
from harness.guest.system import System, parse_pairs
from harness.model.pci import Bdf

MSIX_MAPPABLE = 3
"""``VFIO_REGION_INFO_CAP_MSIX_MAPPABLE``."""


@dataclass(frozen=True, slots=True)
class VfioRegion:
    """What ``VFIO_DEVICE_GET_REGION_INFO`` says of one region."""

    index: int
    """0 to 5: the BARs; 6 ROM, 7 configuration space, 8 VGA."""
    size: int
    mappable: bool
    capabilities: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VfioInfo:
    """What the device says when it has just been opened."""

    command: int
    """COMMAND register."""
    can_reset: bool
    regions: tuple[VfioRegion, ...]

    @property
    def bus_master(self) -> bool:
        """Say whether COMMAND bit 2 is set."""
        return bool(self.command & 4)

    def region(self, index: int) -> VfioRegion:
        """Return region *index*.

        :raise KeyError: there is none.
        """
        for region in self.regions:
            if region.index == index:
                return region
        raise KeyError(f"no vfio region {index}")


@dataclass(frozen=True, slots=True)
class MappingTrial:
    """First word of a mapping, read three times: ``0x…``, or ``sigbus``."""

    value: str
    disabled: str
    """After COMMAND.MSE was cleared."""
    restored: str
    """After it was set again."""


@dataclass(frozen=True, slots=True)
class VfioFile:
    """The function *bdf* of *system*, opened from user space."""

    system: System
    bdf: Bdf

    def info(self) -> VfioInfo:
        """Open it and ask for what it is."""
        text = self.system.run([self.system.probe_path, "vfio", "info", str(self.bdf)]).stdout
        return parse_vfio_info(text)

    def read(self, region: int, offset: int, *, width: int = 4) -> int:
        """Read one word by ``pread``."""
        said = self.system.probe(
            "vfio", "read", str(self.bdf), str(region), offset, "--width", str(width)
        )
        return int(said["last"], 16)

    def map_while_disabled(self, region: int, offset: int, length: int) -> MappingTrial:
        """Map a part of a BAR and read it before, while and after memory is disabled."""
        said = self.system.probe(
            "vfio", "map", str(self.bdf), str(region), offset, length, "--memory-disabled"
        )
        try:
            return MappingTrial(said["value"], said["disabled"], said["restored"])
        except KeyError as error:
            raise ParseError(
                f"no {error} in the answer", text=str(said), where="probe vfio map"
            ) from error


def parse_vfio_info(text: str) -> VfioInfo:
    """Read the answer of ``probe vfio info``.

    :raise ParseError: a field is missing.
    """
    pairs = parse_pairs(text)
    rows = [parse_pairs(line) for line in text.splitlines() if line.startswith("region=")]
    try:
        return VfioInfo(
            command=int(pairs["command"], 16),
            can_reset=pairs["reset"] == "yes",
            regions=tuple(
                VfioRegion(
                    index=int(row["region"]),
                    size=int(row["size"], 16),
                    mappable=row["mmap"] == "yes",
                    capabilities=tuple(
                        int(word) for word in row.get("caps", "").split(",") if word.isdigit()
                    ),
                )
                for row in rows
            ),
        )
    except (KeyError, ValueError) as error:
        raise ParseError(f"not an answer: {error}", text=text, where="probe vfio info") from error

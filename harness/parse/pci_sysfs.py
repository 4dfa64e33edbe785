"""Sysfs files of a PCI function (``config``, ``resource``) to a `PciFunction`.

Sizes and addresses come from ``resource``, never from the registers: those of a virtual
function read zero, and those of a function that is switched off may read anything.
Lines are indexed by resource: 0 to 5 BARs, 6 the expansion ROM, 7 to 12 the BARs of all
virtual functions together (Linux ``drivers/pci/pci-sysfs.c`` ``resource_show()``).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from harness.errors import ParseError
from harness.model.pci import Bar, BarKind, Bdf, PciFunction, PciId
from harness.parse.config_space import parse_config

_LINE = re.compile(r"0x([0-9a-f]{16}) 0x([0-9a-f]{16}) 0x([0-9a-f]{16})")

# include/linux/ioport.h
_IO: Final = 0x100
_MEM: Final = 0x200
_PREFETCH: Final = 0x2000
_MEM_64: Final = 0x100000
_UNSET: Final = 0x20000000

_NO_ID: Final = b"\xff" * 4

_ROM: Final = 6
_FIRST_VF: Final = 7


@dataclass(frozen=True, slots=True)
class Resource:
    """One line of sysfs ``resource`` that is in use."""

    index: int
    start: int
    size: int
    flags: int

    def bar(self, index: int, *, share: int = 1) -> Bar:
        """Return it as BAR *index*; *share*: how many functions divide it."""
        if self.flags & _IO:
            kind = BarKind.IO
        else:
            kind = BarKind.MEM64 if self.flags & _MEM_64 else BarKind.MEM32
        assigned = self.start != 0 and not self.flags & _UNSET
        return Bar(
            index=index,
            kind=kind,
            size=self.size // share,
            prefetchable=bool(self.flags & _PREFETCH),
            address=self.start if assigned else None,
        )


def parse_resource(text: str, where: str = "resource") -> tuple[Resource, ...]:
    """Read sysfs ``resource``: one ``start end flags`` line per resource, zeros if unused.

    :raise ParseError: a line has another form, an end before its start, no type, or lines
        are missing.
    """
    found: list[Resource] = []
    lines = text.strip().splitlines()
    for index, line in enumerate(lines):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ParseError(
                "not a 'start end flags' line", text=line, where=f"{where}:{index + 1}"
            )
        start, end, flags = (int(group, 16) for group in match.groups())
        if not flags and not end:
            continue
        if end < start or not flags & (_IO | _MEM):
            raise ParseError(
                "neither memory nor ports, or ends before it starts",
                text=line,
                where=f"{where}:{index + 1}",
            )
        found.append(Resource(index, start, end - start + 1, flags))
    if len(lines) <= _ROM:
        raise ParseError(
            f"{len(lines)} lines where a function has at least {_ROM + 1}", text=text, where=where
        )
    return tuple(found)


def parse_function(
    bdf: Bdf,
    config: bytes,
    resource: str,
    driver: str | None = None,
    iommu_group: int | None = None,
    *,
    pci_id: PciId | None = None,
    allow_truncated: bool = False,
) -> PciFunction:
    """Return the function at *bdf* from the contents of its sysfs files.

    :param config: ``config``, read as root; see `parse_config` for *allow_truncated*.
    :param resource: ``resource``; BAR addresses are those of its host.
    :param driver: name of the bound driver (target of the ``driver`` link), None if none.
    :param iommu_group: number of the group (target of the ``iommu_group`` link), if any.
    :param pci_id: ``vendor`` and ``device``. The registers of a virtual function read ffff
        (PCIe 6.0, 9.3.4.1); the kernel knows the ids from the physical one.
    :raise ParseError: one of the two does not follow its format.
    """
    readable = config
    if pci_id is not None and config[:4] == _NO_ID and config[:64] != b"\xff" * 64:
        readable = struct.pack("<HH", pci_id.vendor, pci_id.device) + config[4:]
    facts = parse_config(readable, f"{bdf}/config", allow_truncated=allow_truncated)
    resources = parse_resource(resource, f"{bdf}/resource")
    # Bridges use resources 7 and up for their windows.
    last_vf = _FIRST_VF + 5 if facts.total_vfs else -1
    return PciFunction(
        bdf=bdf,
        id=facts.id,
        class_code=facts.class_code,
        bars=tuple(r.bar(r.index) for r in resources if r.index < _ROM),
        msix=facts.msix,
        capabilities=facts.capabilities,
        rom_size=next((r.size for r in resources if r.index == _ROM), 0),
        interrupt_pin=facts.interrupt_pin,
        driver=driver,
        iommu_group=iommu_group,
        revision=facts.revision,
        config=config,
        msi=facts.msi,
        vf_bars=tuple(
            r.bar(r.index - _FIRST_VF, share=facts.total_vfs)
            for r in resources
            if _FIRST_VF <= r.index <= last_vf
        ),
    )

"""What one command says of many PCI functions (`READ_FUNCTIONS`) to `PciFunction`s.

Under emulation a process start costs as much as reading a dozen files: four programs read all.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from harness.errors import ParseError
from harness.model.pci import Bdf, PciFunction, PciId
from harness.parse.pci_sysfs import parse_function

READ_FUNCTIONS = """
cd /sys/bus/pci/devices 2>/dev/null || {{ echo @; exit 0; }}
grep -Hs '' {where}/vendor {where}/device {where}/resource
ls -ld {where}/driver {where}/iommu_group 2>/dev/null
echo @
head -v -c 4096 {where}/config 2>/dev/null | base64
"""
"""Shell text; ``{where}`` is an address or a pattern of addresses."""

_FILE = re.compile(r"^([0-9a-f:.]+)/(vendor|device|resource):(.*)$", re.MULTILINE)
_LINK = re.compile(r" ([0-9a-f:.]+)/(driver|iommu_group) -> \S*?([^/\s]+)$", re.MULTILINE)
_ID = ("vendor", "device")
_CONFIG = re.compile(rb"(?:\A|\n)==> ([0-9a-f:.]+)/config <==\n")


def parse_functions(said: str) -> Iterator[PciFunction]:
    """Yield the functions, in the order of their addresses.

    :raise ParseError: the text is not that of the command.
    """
    text, mark, encoded = said.rpartition("@\n")
    if not mark:
        raise ParseError("no configuration spaces", text=said, where="PCI functions")
    try:
        configs = _CONFIG.split(base64.b64decode("".join(encoded.split()), validate=True))[1:]
    except binascii.Error as error:
        raise ParseError(str(error), text=encoded, where="PCI functions") from error
    files: dict[tuple[str, str], list[str]] = {}
    for name, file, line in _FILE.findall(text):
        files.setdefault((name, file), []).append(line)
    links = {(name, link): target for name, link, target in _LINK.findall(text)}
    for raw, config in zip(configs[::2], configs[1::2], strict=True):
        name = raw.decode()
        ids = [files.get((name, file), [""])[0].removeprefix("0x") for file in _ID]
        group = links.get((name, "iommu_group"))
        yield parse_function(
            Bdf.parse(name),
            config=config,
            resource="\n".join(files.get((name, "resource"), [])),
            driver=links.get((name, "driver")),
            iommu_group=int(group) if group else None,
            pci_id=PciId.parse(":".join(ids)) if all(ids) else None,
        )

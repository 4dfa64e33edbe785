"""The JSON form of a `VfioCase`: the file that ``--expect`` takes and evidence holds.

::

    {"function": {…},                      see harness.model.pci_json
     "bar_addresses": {"0": "0xfe800000"}, where each BAR decodes in the guest
     "kernel": "6.12.48+deb13-amd64",      uname -r where QEMU runs
     "qemu": "10.0.2 (Debian …)",
     "kvm": true,                          optional from here on
     "page": 4096,
     "name": "0000:01:00.0",               prefix of region names, if not the function's address
     "device_id": "nvme0",                 to judge owners
     "options": {"no_mmap": false, "msix_relocation": 2, "vga": false,
                 "no_geforce_quirks": false, "igd_gms": false, "no_msix_emulation": false},
     "state": {"mmaps_off": false, "pba_shown": false, "nvidia_window": false},
     "subpage_reserved": [0],
     "regions": {"0": {"mappable": true, "msix_mappable": true,
                       "sparse": [["0x0", "0x2000"]]}},     start and size; null: no capability
     "rom_address": "0xfe900000",
     "neighbours": [["0xfe801000", "0x100"]],
     "transport": "kernel",                or "vfio-user"
     "order": [0, 2],                      of BARs that overlap, the later on top
     "grown": [4],                         BARs below a page that filled one before
     "by_power": {"4": true},              BARs below a page that came with the power state
     "let_through": {"memory": [["0xfe000000", "0x100000"]], "I/O": []}}   null: no bridge
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection, Mapping
from typing import Final, TypeVar

from harness.model.address import AddressRange
from harness.model.expectation import Space
from harness.model.json_fields import Fields, as_number
from harness.model.pci_json import function_from_dict, function_to_dict
from harness.model.version import KernelVersion, QemuVersion
from harness.model.vfio.case import Transport, VfioCase
from harness.model.vfio.mapping import RegionFacts, VfioOptions, VfioState

_Choice = TypeVar("_Choice", bound=enum.StrEnum)

_KEYS: Final = (
    "function bar_addresses kernel qemu kvm page name device_id options state"
    " subpage_reserved regions rom_address neighbours transport order grown by_power let_through"
)


def case_to_dict(case: VfioCase) -> dict[str, object]:
    """Return *case* as plain JSON values; `case_from_dict` reads it back equal."""
    return {
        "function": function_to_dict(case.function),
        "bar_addresses": {str(bar): f"{at:#x}" for bar, at in case.bar_addresses.items()},
        "kernel": case.kernel.text or str(case.kernel),
        "qemu": case.qemu.text or str(case.qemu),
        "kvm": case.kvm,
        "page": case.page,
        "name": case.name,
        "device_id": case.device_id,
        "options": dataclasses.asdict(case.options),
        "state": dataclasses.asdict(case.state),
        "subpage_reserved": sorted(case.subpage_reserved),
        "regions": {
            str(bar): {
                "mappable": facts.mappable,
                "msix_mappable": facts.msix_mappable,
                "sparse": None if facts.sparse is None else _from_ranges(facts.sparse),
            }
            for bar, facts in case.regions.items()
        },
        "rom_address": None if case.rom_address is None else f"{case.rom_address:#x}",
        "neighbours": _from_ranges(case.neighbours),
        "transport": str(case.transport),
        "order": list(case.order),
        "grown": sorted(case.grown),
        "by_power": {str(bar): fills for bar, fills in case.by_power.items()},
        "let_through": None
        if case.let_through is None
        else {str(space): _from_ranges(gates) for space, gates in case.let_through.items()},
    }


def case_from_dict(values: object) -> VfioCase:
    """Read what `case_to_dict` wrote, or what somebody wrote by hand.

    :raise ValueError: a key is missing, unknown or holds another kind of value; the text
        names it.
    """
    read = Fields(values, "file", _KEYS)
    if not read.has("function"):
        raise ValueError("file.function: missing")
    if not read.has("bar_addresses"):
        raise ValueError("file.bar_addresses: missing (an empty object: no BAR decodes)")
    page = read.number("page", 4096)
    if page < 4096 or page & (page - 1):
        raise ValueError(f"file.page: {page} is no page size")
    return VfioCase(
        function=function_from_dict(read.value("function")),
        kernel=KernelVersion.parse(read.text("kernel")),
        qemu=QemuVersion.parse(read.text("qemu")),
        bar_addresses={
            as_number(bar, "file.bar_addresses"): as_number(at, f"file.bar_addresses.{bar}")
            for bar, at in read.pairs("bar_addresses").items()
        },
        kvm=read.flag("kvm"),
        page=page,
        options=_options(read.value("options")),
        state=_state(read.value("state")),
        subpage_reserved=tuple(
            as_number(bar, "file.subpage_reserved") for bar in read.items("subpage_reserved")
        ),
        regions={
            as_number(bar, "file.regions"): _region(facts, f"regions.{bar}")
            for bar, facts in read.pairs("regions").items()
        },
        rom_address=read.number("rom_address") if read.has("rom_address") else None,
        neighbours=_ranges(read.items("neighbours"), "neighbours"),
        transport=_one_of(Transport, read.text("transport", "kernel"), "file.transport"),
        order=tuple(as_number(bar, "file.order") for bar in read.items("order")),
        grown=tuple(as_number(bar, "file.grown") for bar in read.items("grown")),
        by_power=_flags(read.pairs("by_power"), "file.by_power"),
        let_through=_gates(read),
        name=read.text("name", ""),
        device_id=read.optional_text("device_id"),
    )


def _flags(pairs: Mapping[str, object], where: str) -> dict[int, bool]:
    keys = Fields(pairs, where, " ".join(pairs))
    return {as_number(bar, where): keys.flag(bar) for bar in pairs}


def _gates(read: Fields) -> dict[Space, tuple[AddressRange, ...]] | None:
    if not read.has("let_through"):
        return None
    gates = Fields(read.value("let_through"), "file.let_through", " ".join(Space))
    return {space: _ranges(gates.items(space), f"let_through.{space}") for space in Space}


def _one_of(kind: type[_Choice], text: str, where: str) -> _Choice:
    try:
        return kind(text)
    except ValueError as error:
        known = ", ".join(str(choice) for choice in kind)
        raise ValueError(f"{where}: expected one of {known}, found {text!r}") from error


def _options(value: object) -> VfioOptions:
    keys = " ".join(field.name for field in dataclasses.fields(VfioOptions))
    read = Fields(value if value is not None else {}, "options", keys)
    return VfioOptions(
        no_mmap=read.flag("no_mmap"),
        msix_relocation=read.number("msix_relocation") if read.has("msix_relocation") else None,
        vga=read.flag("vga"),
        no_geforce_quirks=read.flag("no_geforce_quirks"),
        igd_gms=read.flag("igd_gms"),
        no_msix_emulation=read.flag("no_msix_emulation"),
    )


def _state(value: object) -> VfioState:
    keys = " ".join(field.name for field in dataclasses.fields(VfioState))
    read = Fields(value if value is not None else {}, "state", keys)
    return VfioState(
        mmaps_off=read.flag("mmaps_off"),
        pba_shown=read.flag("pba_shown"),
        nvidia_window=read.flag("nvidia_window"),
    )


def _region(value: object, where: str) -> RegionFacts:
    read = Fields(value, where, "mappable msix_mappable sparse")
    return RegionFacts(
        mappable=read.flag("mappable"),
        msix_mappable=read.flag("msix_mappable"),
        sparse=_ranges(read.items("sparse"), f"{where}.sparse") if read.has("sparse") else None,
    )


def _from_ranges(ranges: Collection[AddressRange]) -> list[list[str]]:
    return [[f"{part.start:#x}", f"{part.size:#x}"] for part in ranges]


def _ranges(values: list[object], where: str) -> tuple[AddressRange, ...]:
    found: list[AddressRange] = []
    for number, value in enumerate(values):
        here = f"{where}[{number}]"
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError(f"{here}: expected [start, size], found {value!r}")
        start, size = (as_number(part, here) for part in value)
        found.append(AddressRange(start, size))
    return tuple(found)

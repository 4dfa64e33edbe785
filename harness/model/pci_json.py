"""The JSON form of a `PciFunction`: what evidence files hold and other machines can judge.

::

    {"bdf": "0000:01:00.0", "id": "1b36:0010", "class": "0x010802", "revision": 2,
     "bars": [{"index": 0, "kind": "mem64", "size": "0x4000", "prefetchable": false,
               "address": "0xfe800000"}],
     "msix": {"offset": 64, "vectors": 65, "table_bar": 0, "table_offset": "0x2000",
              "pba_bar": 0, "pba_offset": "0x3000", "enabled": true},
     "msi": null, "capabilities": [{"id": 17, "offset": 64, "extended": false}],
     "rom_size": "0x0", "interrupt_pin": 1, "driver": "vfio-pci", "iommu_group": 3,
     "vf_bars": [], "config": "361b1000..."}

Numbers may be given as numbers or as text (``"0x4000"``, ``"16384"``). Only ``bdf``, ``id`` and
``class`` must be there; a key that is not known is an error, for it is a typing mistake.
"""

from __future__ import annotations

from typing import Final

from harness.model.json_fields import Fields
from harness.model.pci import (
    Bar,
    BarKind,
    Bdf,
    Capability,
    MsiCapability,
    MsixCapability,
    PciFunction,
    PciId,
)

_KEYS: Final = (
    "bdf id class revision bars msix msi capabilities rom_size interrupt_pin driver"
    " iommu_group vf_bars config"
)


def function_to_dict(function: PciFunction) -> dict[str, object]:
    """Return *function* as plain JSON values; `function_from_dict` reads it back equal."""
    msix, msi = function.msix, function.msi
    return {
        "bdf": str(function.bdf),
        "id": str(function.id),
        "class": f"{function.class_code:#08x}",
        "revision": function.revision,
        "bars": [_bar_to_dict(bar) for bar in function.bars],
        "msix": None
        if msix is None
        else {
            "offset": msix.offset,
            "vectors": msix.vectors,
            "table_bar": msix.table_bar,
            "table_offset": f"{msix.table_offset:#x}",
            "pba_bar": msix.pba_bar,
            "pba_offset": f"{msix.pba_offset:#x}",
            "enabled": msix.enabled,
        },
        "msi": None
        if msi is None
        else {
            "offset": msi.offset,
            "vectors": msi.vectors,
            "is_64bit": msi.is_64bit,
            "maskable": msi.maskable,
            "enabled": msi.enabled,
        },
        "capabilities": [
            {"id": c.id, "offset": c.offset, "extended": c.extended} for c in function.capabilities
        ],
        "rom_size": f"{function.rom_size:#x}",
        "interrupt_pin": function.interrupt_pin,
        "driver": function.driver,
        "iommu_group": function.iommu_group,
        "vf_bars": [_bar_to_dict(bar) for bar in function.vf_bars],
        "config": function.config.hex(),
    }


def function_from_dict(values: object) -> PciFunction:
    """Read what `function_to_dict` wrote, or what somebody wrote by hand.

    :raise ValueError: a key is missing, unknown or holds another kind of value; the text
        names it.
    """
    read = Fields(values, "function", _KEYS)
    return PciFunction(
        bdf=Bdf.parse(read.text("bdf")),
        id=PciId.parse(read.text("id")),
        class_code=read.number("class"),
        bars=tuple(_bar(value, f"bars[{n}]") for n, value in enumerate(read.items("bars"))),
        msix=_msix(read.value("msix")) if read.has("msix") else None,
        capabilities=tuple(
            _capability(value, f"capabilities[{n}]")
            for n, value in enumerate(read.items("capabilities"))
        ),
        rom_size=read.number("rom_size", 0),
        interrupt_pin=read.number("interrupt_pin", 0),
        driver=read.optional_text("driver"),
        iommu_group=read.number("iommu_group") if read.has("iommu_group") else None,
        revision=read.number("revision", 0),
        config=_bytes(read.text("config", "")),
        msi=_msi(read.value("msi")) if read.has("msi") else None,
        vf_bars=tuple(
            _bar(value, f"vf_bars[{n}]") for n, value in enumerate(read.items("vf_bars"))
        ),
    )


def _bar_to_dict(bar: Bar) -> dict[str, object]:
    return {
        "index": bar.index,
        "kind": bar.kind.value,
        "size": f"{bar.size:#x}",
        "prefetchable": bar.prefetchable,
        "address": None if bar.address is None else f"{bar.address:#x}",
    }


def _bar(value: object, where: str) -> Bar:
    read = Fields(value, where, "index kind size prefetchable address")
    index, size = read.number("index"), read.number("size")
    if not 0 <= index <= 5 or size <= 0 or size & (size - 1):
        raise ValueError(f"{where}: not a BAR: index {index}, size {size:#x}")
    kinds = {kind.value: kind for kind in BarKind}
    kind = read.text("kind")
    if kind not in kinds:
        raise ValueError(f"{where}.kind: {kind!r} is none of {', '.join(kinds)}")
    return Bar(
        index=index,
        kind=kinds[kind],
        size=size,
        prefetchable=read.flag("prefetchable"),
        address=read.number("address") if read.has("address") else None,
    )


def _msix(value: object) -> MsixCapability:
    keys = "offset vectors table_bar table_offset pba_bar pba_offset enabled"
    read = Fields(value, "msix", keys)
    vectors = read.number("vectors")
    if not 1 <= vectors <= 2048:
        raise ValueError(f"msix.vectors: {vectors} is not between 1 and 2048")
    return MsixCapability(
        offset=read.number("offset", 0),
        vectors=vectors,
        table_bar=read.number("table_bar"),
        table_offset=read.number("table_offset"),
        pba_bar=read.number("pba_bar"),
        pba_offset=read.number("pba_offset"),
        enabled=read.flag("enabled"),
    )


def _msi(value: object) -> MsiCapability:
    read = Fields(value, "msi", "offset vectors is_64bit maskable enabled")
    return MsiCapability(
        offset=read.number("offset"),
        vectors=read.number("vectors"),
        is_64bit=read.flag("is_64bit"),
        maskable=read.flag("maskable"),
        enabled=read.flag("enabled"),
    )


def _capability(value: object, where: str) -> Capability:
    read = Fields(value, where, "id offset extended")
    return Capability(read.number("id"), read.number("offset"), read.flag("extended"))


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise ValueError(f"function.config: not bytes in hex: {error}") from error

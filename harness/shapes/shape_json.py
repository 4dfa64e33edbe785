"""The JSON form of shapes: what is saved when one fails, and kept in the corpus.

::

    {"format": 1,
     "title": "table straddles pages",           optional: what it is about
     "found": "…",                               optional: what was wrong when it was saved
     "rules": ["MAP-03"],                        optional: what it shows
     "shapes": [                                 more than one: side by side in one machine
       {"id": "1234:5a5a", "class": "0xff0000",
        "bars": [{"index": 0, "kind": "mem64", "size": "0x4000", "prefetchable": false,
                  "direct": true}],              or false, or [["0x0", "0x1000"]]: areas
        "msix": {"vectors": 17, "table_bar": 0, "table_offset": "0x2000",
                 "pba_bar": 0, "pba_offset": "0x3000", "mappable": false},
        "express": true, "msi": 0, "power": false, "rom_size": "0x0",
        "place": "root",                         root, port or bridge
        "gates": {"low": ["0x0", "0x100000"], "high": null, "ports": null},
        "steps": [[{"put": 0, "at": "0x0", "high": false, "high_first": false},
                   {"rom": "0x10000", "enabled": true},
                   {"decode": {"memory": true, "ports": false}},
                   {"size_bars": true}, {"power": false},
                   {"gate": {"memory": true, "ports": true}}]]}]}

Only ``format`` and ``shapes`` must be there; a key that is not known is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import ConfigError
from harness.model.address import AddressRange
from harness.model.json_fields import Fields, as_number
from harness.model.pci import BarKind, PciId
from harness.shapes.shape import (
    Action,
    Decode,
    Gate,
    Gates,
    Place,
    Power,
    Put,
    Rom,
    Shape,
    ShapeBar,
    ShapeMsix,
    SizeBars,
)

FORMAT: Final = 1
_SHAPE_KEYS: Final = "id class bars msix express msi power rom_size place gates steps"
_ACTION_KEYS: Final = "put at high high_first decode size_bars gate rom enabled power"


@dataclass(frozen=True, slots=True)
class ShapeFile:
    """What is in such a file."""

    shapes: tuple[Shape, ...]
    title: str = ""
    found: str = ""
    rules: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the text of the file."""
        told = {"title": self.title, "found": self.found, "rules": list(self.rules)}
        head: dict[str, object] = {"format": FORMAT}
        head |= {key: value for key, value in told.items() if value}
        shapes = [shape_to_dict(shape) for shape in self.shapes]
        return json.dumps(head | {"shapes": shapes}, indent=1) + "\n"


def read_shapes(path: Path) -> ShapeFile:
    """Read such a file.

    :raise ConfigError: it cannot be read, or is none; the text names the key that is wrong.
    """
    hint = "harness/shapes/shape_json.py shows the format"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        read = Fields(values, "file", "format title found rules shapes")
        if (version := read.number("format")) != FORMAT:
            raise ValueError(f"file.format: {version}, this is {FORMAT}")
        shapes = [
            shape_from_dict(one, f"shapes[{i}]") for i, one in enumerate(read.items("shapes"))
        ]
        if not shapes:
            raise ValueError("file.shapes: there is none")
        rules = tuple(str(rule) for rule in read.items("rules"))
        return ShapeFile(tuple(shapes), read.text("title", ""), read.text("found", ""), rules)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", seen=str(error.strerror)) from error
    except ValueError as error:
        raise ConfigError(f"{path} is no file of shapes", seen=str(error), hint=hint) from error


def shape_to_dict(shape: Shape) -> dict[str, object]:
    """Return *shape* as plain JSON values; `shape_from_dict` reads it back equal."""
    msix = shape.msix
    return {
        "id": str(shape.id),
        "class": f"{shape.class_code:#08x}",
        "bars": [_bar_to_dict(bar) for bar in shape.bars],
        "msix": None
        if msix is None
        else {
            "vectors": msix.vectors,
            "table_bar": msix.table_bar,
            "table_offset": f"{msix.table_offset:#x}",
            "pba_bar": msix.pba_bar,
            "pba_offset": f"{msix.pba_offset:#x}",
            "mappable": msix.mappable,
        },
        "express": shape.express,
        "msi": shape.msi,
        "power": shape.power,
        "rom_size": f"{shape.rom_size:#x}",
        "place": str(shape.place),
        "gates": {
            "low": _pair(shape.gates.low),
            "high": _pair(shape.gates.high),
            "ports": _pair(shape.gates.ports),
        },
        "steps": [[_action_to_dict(action) for action in step] for step in shape.steps],
    }


def shape_from_dict(values: object, where: str = "shape") -> Shape:
    """Read what `shape_to_dict` wrote, or what somebody wrote by hand.

    :raise ValueError: a key is unknown or holds another kind of value; the text names it.
    """
    read = Fields(values, where, _SHAPE_KEYS)
    plain = Shape()
    return Shape(
        bars=tuple(_bar(bar, f"{where}.bars[{i}]") for i, bar in enumerate(read.items("bars"))),
        msix=_msix(read.value("msix"), f"{where}.msix") if read.has("msix") else None,
        id=PciId.parse(read.text("id", str(plain.id))),
        class_code=_below(1 << 24, read.number("class", plain.class_code), f"{where}.class"),
        express=read.flag("express") if read.has("express") else plain.express,
        msi=_below(33, read.number("msi", 0), f"{where}.msi"),
        power=read.flag("power"),
        rom_size=_rom_size(read.number("rom_size", 0), f"{where}.rom_size"),
        place=Place(read.text("place", str(plain.place))),
        gates=_gates(read.value("gates"), f"{where}.gates"),
        steps=tuple(
            tuple(_action(action, f"{where}.steps[{i}]") for action in _list(step, where))
            for i, step in enumerate(read.items("steps"))
        ),
    )


def _bar_to_dict(bar: ShapeBar) -> dict[str, object]:
    direct = bar.direct if isinstance(bar.direct, bool) else [_pair(area) for area in bar.direct]
    return {
        "index": bar.index,
        "kind": bar.kind.value,
        "size": f"{bar.size:#x}",
        "prefetchable": bar.prefetchable,
        "direct": direct,
    }


def _bar(value: object, where: str) -> ShapeBar:
    read = Fields(value, where, "index kind size prefetchable direct")
    direct = read.value("direct")
    return ShapeBar(
        index=read.number("index"),
        kind=BarKind(read.text("kind")),
        size=_not_none(read.number("size"), f"{where}.size"),
        prefetchable=read.flag("prefetchable"),
        direct=tuple(_range(area, f"{where}.direct") for area in direct)
        if isinstance(direct, list)
        else (read.flag("direct") if read.has("direct") else True),
    )


def _msix(value: object, where: str) -> ShapeMsix:
    read = Fields(value, where, "vectors table_bar table_offset pba_bar pba_offset mappable")
    return ShapeMsix(
        vectors=_vectors(read.number("vectors"), f"{where}.vectors"),
        table_bar=_below(8, read.number("table_bar", 0), f"{where}.table_bar"),
        table_offset=_offset(read.number("table_offset", 0), f"{where}.table_offset"),
        pba_bar=_below(8, read.number("pba_bar", 0), f"{where}.pba_bar"),
        pba_offset=_offset(read.number("pba_offset"), f"{where}.pba_offset"),
        mappable=read.flag("mappable"),
    )


def _gates(value: object, where: str) -> Gates:
    read = Fields(value if value is not None else {}, where, "low high ports")
    found = {
        name: _range(read.value(name), f"{where}.{name}")
        for name in ("low", "high", "ports")
        if read.has(name)
    }
    return Gates(**found)


def _action_to_dict(action: Action) -> dict[str, object]:
    match action:
        case Put():
            return {
                "put": action.bar,
                "at": f"{action.at:#x}",
                "high": action.high,
                "high_first": action.high_first,
            }
        case Decode():
            return {"decode": {"memory": action.memory, "ports": action.ports}}
        case Gate():
            return {"gate": {"memory": action.memory, "ports": action.ports}}
        case Rom():
            return {"rom": f"{action.at:#x}", "enabled": action.enabled}
        case SizeBars():
            return {"size_bars": True}
        case Power():
            return {"power": action.on}


def _action(value: object, where: str) -> Action:
    read = Fields(value, where, _ACTION_KEYS)
    if read.has("put"):
        high, first = read.flag("high"), read.flag("high_first")
        return Put(read.number("put"), read.number("at"), high, first)
    if read.has("rom"):
        return Rom(read.number("rom"), read.flag("enabled"))
    for key, kind in (("decode", Decode), ("gate", Gate)):
        if read.has(key):
            bits = Fields(read.value(key), f"{where}.{key}", "memory ports")
            return kind(bits.flag("memory"), bits.flag("ports"))
    if read.has("power"):
        return Power(read.flag("power"))
    if read.flag("size_bars"):
        return SizeBars()
    raise ValueError(f"{where}: no action is {value!r}")


# What no register can hold cannot be served, so it is no shape, not even an illegal one.


def _below(limit: int, number: int, where: str) -> int:
    if number >= limit:
        raise ValueError(f"{where}: {number:#x}, {limit - 1:#x} is the most")
    return number


def _not_none(number: int, where: str) -> int:
    if number == 0:
        raise ValueError(f"{where}: 0")
    return number


def _vectors(number: int, where: str) -> int:
    return _below(2049, _not_none(number, where), where)


def _offset(number: int, where: str) -> int:
    if number % 8:
        raise ValueError(f"{where}: {number:#x} is no multiple of 8")
    return _below(1 << 32, number, where)


def _rom_size(number: int, where: str) -> int:
    if number and (number < 2048 or number & (number - 1)):
        raise ValueError(f"{where}: {number:#x} is no power of two of at least 0x800")
    return number


def _pair(area: AddressRange | None) -> list[str] | None:
    return None if area is None else [f"{area.start:#x}", f"{area.size:#x}"]


def _range(value: object, where: str) -> AddressRange:
    start, size = (as_number(part, where) for part in _list(value, where, 2))
    return AddressRange(start, size)


def _list(value: object, where: str, length: int | None = None) -> Sequence[object]:
    if isinstance(value, Mapping) or not isinstance(value, list):
        raise ValueError(f"{where}: expected a list, found {value!r}")
    if length is not None and len(value) != length:
        raise ValueError(f"{where}: expected {length} values, found {value!r}")
    return value

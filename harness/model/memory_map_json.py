"""Memory maps as plain values for JSON, the form of ``memory-map.json`` in the evidence.

Addresses are text as QEMU prints them, because JSON readers lose bits of large numbers::

    {"views": [{"spaces": [{"name": "memory", "root": "system"}], "root": "system",
                "regions": [{"range": "…-…", "kind": "ramd", "name": "0000:03:00.0 BAR 0
                             mmaps[0]", "accelerators": ["KVM"]}]}]}

Keys that hold their default are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from harness.errors import ParseError
from harness.model.address import AddressRange
from harness.model.memory_map import AddressSpace, FlatView, Kind, MemoryMap, Owner, Region

_T = TypeVar("_T")


def region_to_dict(row: Region) -> dict[str, object]:
    """Return one row as plain values."""
    plain: dict[str, object] = {
        "range": str(row.range),
        "kind": row.kind.value,
        "name": row.name,
        "priority": row.priority,
    }
    optional: dict[str, object] = {
        "offset": f"{row.offset:016x}" if row.offset else None,
        "nonvolatile": row.nonvolatile,
        "owner": _owner_to_plain(row.owner),
        "parent": _owner_to_plain(row.parent),
        "orphan": row.orphan,
        "accelerators": list(row.accelerators),
        "word": row.word,
    }
    return plain | {key: value for key, value in optional.items() if value}


def _owner_to_plain(owner: Owner | None) -> dict[str, object] | None:
    if owner is None:
        return None
    return {"sort": owner.sort, "key": owner.key, "value": owner.value}


def _space_to_plain(space: AddressSpace) -> dict[str, object]:
    plain: dict[str, object] = {"name": space.name, "root": space.root}
    return plain if space.alias is None else plain | {"alias": space.alias}


def map_to_dict(memory_map: MemoryMap) -> dict[str, object]:
    """Return *memory_map* as values `json.dumps` takes."""
    return {
        "views": [
            {
                "spaces": [_space_to_plain(space) for space in view.spaces],
                "root": view.root,
                "regions": [region_to_dict(row) for row in view.regions],
            }
            for view in memory_map
        ]
    }


class _Plain:
    """A mapping read key by key; every refusal says where in the document it is."""

    def __init__(self, data: object, where: str) -> None:
        self.where = where
        if not isinstance(data, Mapping):
            raise self.fail("not an object", data)
        self.data = data

    def fail(self, summary: str, data: object) -> ParseError:
        return ParseError(summary, text=repr(data)[:200], where=self.where)

    def take(self, key: str, kind: type[_T], default: _T | None = None) -> _T:
        value = self.data.get(key, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.fail(f"{key!r} must be of type {kind.__name__}", value)
        return value

    def items(self, key: str) -> list[_Plain]:
        items = self.take(key, list)
        return [_Plain(item, f"{self.where}.{key}[{n}]") for n, item in enumerate(items)]

    def optional_text(self, key: str) -> str | None:
        return None if self.data.get(key) is None else self.take(key, str)


def _owner_from_plain(plain: _Plain, key: str) -> Owner | None:
    if plain.data.get(key) is None:
        return None
    owner = _Plain(plain.data[key], f"{plain.where}.{key}")
    return Owner(owner.take("sort", str), owner.take("key", str), owner.take("value", str))


def _region_from_plain(plain: _Plain) -> Region:
    marks = plain.take("accelerators", list, [])
    if not all(isinstance(mark, str) for mark in marks):
        raise plain.fail("'accelerators' must be a list of texts", marks)
    try:
        return Region(
            range=AddressRange.parse(plain.take("range", str)),
            kind=Kind(plain.take("kind", str)),
            name=plain.take("name", str),
            offset=int(plain.take("offset", str, "0"), 16),
            priority=plain.take("priority", int, 0),
            nonvolatile=plain.take("nonvolatile", bool, False),
            owner=_owner_from_plain(plain, "owner"),
            parent=_owner_from_plain(plain, "parent"),
            orphan=plain.take("orphan", bool, False),
            accelerators=tuple(marks),
            word=plain.take("word", str, ""),
        )
    except ValueError as error:
        raise plain.fail(str(error), plain.data) from error


def map_from_dict(data: object, *, where: str = "memory-map.json") -> MemoryMap:
    """Return the map that `map_to_dict` made *data* of.

    :param data: what `json.loads` gave.
    :param where: name of the document, for errors.
    :raise ParseError: *data* is no memory map; the text names the place.
    """
    views = tuple(
        FlatView(
            spaces=tuple(
                AddressSpace(
                    space.take("name", str), space.take("root", str), space.optional_text("alias")
                )
                for space in view.items("spaces")
            ),
            root=view.optional_text("root"),
            regions=tuple(_region_from_plain(row) for row in view.items("regions")),
        )
        for view in _Plain(data, where).items("views")
    )
    return MemoryMap(views)

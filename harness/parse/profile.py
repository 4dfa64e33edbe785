"""Device profiles: the text of a TOML file to a `DeviceProfile`.

Every key is known here; one that is not is an error, for a key that is misspelt judges nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from harness.errors import ConfigError
from harness.model.pci import BarKind, PciId
from harness.model.profile import (
    EXTENDED,
    BarShape,
    Defect,
    DeviceProfile,
    EnableRule,
    FunctionProfile,
    SriovProfile,
    StandIn,
    items,
)

T = TypeVar("T")
Table = Mapping[str, object]

_SIZE = re.compile(r"(\d+)([KMG]?)")
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_PINS: Final = ("none", "A", "B", "C", "D")


def parse_profile(text: str, name: str) -> DeviceProfile:
    """Read a profile.

    :param name: what it is called; also for messages.
    :raise ConfigError: no TOML, an unknown key, a value of the wrong kind, or a defect that
        names an item which the profile does not have.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"profile {name} is no TOML", seen=str(error)) from error
    reader = _Reader(name)
    profile = reader.device(table)
    known = items(profile)
    for defect in profile.defects:
        if defect.item and defect.item not in known:
            raise ConfigError(
                f"profile {name}: a defect names {defect.item!r}, which the profile does not say",
                seen=defect.text,
                hint=f"it says {', '.join(known)}",
            )
    return profile


def parse_size(text: str) -> int:
    """Read ``32``, ``128K``, ``4M``.

    :raise ValueError: it is no such size, or no power of two.
    """
    match = _SIZE.fullmatch(text)
    size = int(match[1]) * _UNITS[match[2]] if match else 0
    if size <= 0 or size & (size - 1):
        raise ValueError(f"not a size of a BAR (expected like 32, 16K, 4M): {text!r}")
    return size


def parse_bar(text: str) -> BarShape:
    """Read ``16K mem32``, ``4M mem64 pref``, ``32 io``.

    :raise ValueError: it is no such shape.
    """
    words = text.split()
    if len(words) not in (2, 3) or words[2:] not in ([], ["pref"]):
        raise ValueError(f"not a BAR (expected like '16K mem64 pref'): {text!r}")
    return BarShape(parse_size(words[0]), BarKind(words[1]), len(words) == 3)


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name

    def wrong(self, where: str, said: object, hint: str) -> ConfigError:
        return ConfigError(f"profile {self.name}: {where} is wrong", seen=str(said), hint=hint)

    def device(self, table: Table) -> DeviceProfile:
        known = ("title", "source", "driver", "physical", "virtual", "sriov", "defect", "stand_in")
        self.known("the file", table, known)
        if not table.get("title") or not table.get("source") or "physical" not in table:
            raise self.wrong(
                "the file", ", ".join(table), "it needs title, source and the table [physical]"
            )
        return DeviceProfile(
            name=self.name,
            title=self.text(table, "title"),
            source=self.text(table, "source"),
            driver=self.text(table, "driver"),
            physical=self.function("physical", self.table(table, "physical")),
            virtual=self.function("virtual", self.table(table, "virtual")),
            sriov=self.sriov(self.table(table, "sriov")),
            defects=self.defects(table.get("defect", [])),
            stand_in=self.stand_in(self.table(table, "stand_in")),
        )

    def function(self, where: str, table: Table) -> FunctionProfile:
        known = ("id", "class", "bars", "rom", "interrupt_pin", "msi", "msix", "flr", "reset",
                 "aer_masked", "capabilities")  # fmt: skip
        self.known(f"[{where}]", table, known)
        bars = table.get("bars")
        places = table.get("capabilities")
        return FunctionProfile(
            id=self.read(where, table, "id", str, PciId.parse),
            class_code=self.read(where, table, "class", str, _class_code),
            bars=None if bars is None else self.bars(where, self.table(table, "bars")),
            rom=self.read(where, table, "rom", str, _rom),
            interrupt_pin=self.read(where, table, "interrupt_pin", str, _PINS.index),
            msi=self.read(where, table, "msi", int, int),
            msix=self.read(where, table, "msix", int, int),
            flr=self.read(where, table, "flr", bool, bool),
            reset=self.read(where, table, "reset", list, _words),
            aer_masked=self.read(where, table, "aer_masked", int, int),
            capabilities=None
            if places is None
            else self.places(where, self.table(table, "capabilities")),
        )

    def bars(self, where: str, table: Table) -> dict[int, BarShape]:
        self.known(f"[{where}] bars", table, [str(number) for number in range(6)])
        return {
            int(index): self.value(f"[{where}] bars {index}", text, str, parse_bar)
            for index, text in table.items()
        }

    def places(self, where: str, table: Table) -> dict[str, int]:
        self.known(f"[{where}] capabilities", table, EXTENDED)
        return {
            name: self.value(f"[{where}] capabilities {name}", place, int, int)
            for name, place in table.items()
        }

    def sriov(self, table: Table) -> SriovProfile:
        numbers = ("total", "driver_total", "first_offset", "stride", "device")
        self.known("[sriov]", table, (*numbers, "enable"))
        return SriovProfile(
            total=self.read("sriov", table, "total", int, int),
            driver_total=self.read("sriov", table, "driver_total", int, int),
            first_offset=self.read("sriov", table, "first_offset", int, int),
            stride=self.read("sriov", table, "stride", int, int),
            device=self.read("sriov", table, "device", int, int),
            enable=self.read("sriov", table, "enable", str, EnableRule),
        )

    def defects(self, tables: object) -> tuple[Defect, ...]:
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            raise self.wrong("[[defect]]", tables, "each is a table: text, source and maybe item")
        found = []
        for table in tables:
            self.known("[[defect]]", table, ("text", "source", "item"))
            if not table.get("text") or not table.get("source"):
                raise self.wrong("[[defect]]", table, "each needs text and source")
            words = (self.text(table, key) for key in ("text", "source", "item"))
            found.append(Defect(*words))
        return tuple(found)

    def stand_in(self, table: Table) -> StandIn:
        self.known("[stand_in]", table, ("qemu", "options", "subsystem", "shapes"))
        options = self.table(table, "options")
        for key, value in options.items():
            self.value(f"[stand_in] options {key}", value, (str, int, bool), lambda value: value)
        return StandIn(
            qemu=self.text(table, "qemu"),
            options={key: value for key, value in options.items()
                     if isinstance(value, str | int)},
            subsystem=bool(self.read("stand_in", table, "subsystem", bool, bool)),
            shapes=self.read("stand_in", table, "shapes", list, _words) or (),
        )  # fmt: skip

    # small words

    def known(self, where: str, table: Table, names: object) -> None:
        assert isinstance(names, (tuple, list, Mapping))
        if unknown := [key for key in table if key not in names]:
            raise ConfigError(
                f"profile {self.name}: {where} has unknown keys",
                seen=", ".join(unknown),
                hint=f"known are {', '.join(names)}",
            )

    def table(self, table: Table, key: str) -> Table:
        found = table.get(key, {})
        if not isinstance(found, dict):
            raise self.wrong(key, found, "it is a table")
        return found

    def text(self, table: Table, key: str) -> str:
        return self.value(key, table.get(key, ""), str, str)

    def read(
        self,
        where: str,
        table: Table,
        key: str,
        kind: type,
        make: Callable[..., T],
    ) -> T | None:
        if key not in table:
            return None
        return self.value(f"[{where}] {key}", table[key], kind, make)

    def value(
        self, where: str, value: object, kind: type | tuple[type, ...], make: Callable[..., T]
    ) -> T:
        is_right = isinstance(value, kind)
        if is_right and isinstance(value, bool) and kind is int:
            is_right = False
        if is_right and kind is int and isinstance(value, int) and value < 0:
            is_right = False
        if not is_right:
            names = kind if isinstance(kind, tuple) else (kind,)
            wanted = " or ".join(_KIND_NAMES[one] for one in names)
            raise self.wrong(where, repr(value), f"it is {wanted}")
        try:
            return make(value)
        except ValueError as error:
            raise self.wrong(where, error, "docs/profiles.md says how it is written") from error


_KIND_NAMES: Final[Mapping[type, str]] = {
    str: "a text",
    int: "a number, not negative",
    bool: "true or false",
    list: "a list of texts",
}


def _class_code(text: str) -> int:
    if not re.fullmatch(r"[0-9a-fA-F]{6}", text):
        raise ValueError(f"not a class code (expected like 020000): {text!r}")
    return int(text, 16)


def _rom(text: str) -> int:
    return 0 if text == "none" else parse_size(text)


def _words(values: list[object]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"not texts alone: {values}")
    return tuple(map(str, values))

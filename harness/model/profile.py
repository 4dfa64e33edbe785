"""Device profiles: what a device says of itself, item by item, and whether one in hand does. Pure.

A profile is a file (`harness.parse.profile` reads it). What it does not say is not judged; what it
says and cannot be looked at is told with the reason, never taken for right.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from harness.model.pci import BarKind, Bdf, PciFunction, PciId
from harness.model.sriov import virtual_functions

PHYSICAL: Final = "physical"
VIRTUAL: Final = "virtual"
SRIOV: Final = "sriov"

_EXPRESS, _AER_CAP, _SRIOV_CAP = 0x10, 0x01, 0x10
_HEADER: Final = 64
"""Bytes of configuration space that everybody may read."""


class EnableRule(enum.StrEnum):
    """How many virtual functions there may be at a time."""

    ANY = "any"
    ALL_OR_NONE = "all-or-none"


class Answer(enum.StrEnum):
    """What looking at one item gave."""

    HOLDS = "holds"
    DIFFERS = "differs"
    UNASKED = "not asked"


@dataclass(frozen=True, slots=True)
class BarShape:
    """Size in bytes, and what it decodes."""

    size: int
    kind: BarKind
    prefetchable: bool = False

    def __str__(self) -> str:
        return f"{size_text(self.size)} {self.kind.value}{' pref' if self.prefetchable else ''}"


@dataclass(frozen=True, slots=True)
class FunctionProfile:
    """One function. None: the profile does not say."""

    id: PciId | None = None
    class_code: int | None = None
    """24 bits."""
    bars: Mapping[int, BarShape] | None = None
    """All that there are."""
    rom: int | None = None
    """Bytes of the expansion ROM; 0: none."""
    interrupt_pin: int | None = None
    """0: none, 1 to 4: A to D."""
    msi: int | None = None
    """Vectors; 0: no such capability."""
    msix: int | None = None
    flr: bool | None = None
    """Function Level Reset, by Device Capabilities."""
    reset: tuple[str, ...] | None = None
    """Linux' ``reset_method``, in the order of trial."""
    aer_masked: int | None = None
    """Bits that must be set in the AER Uncorrectable Error Mask; others may be."""
    capabilities: Mapping[str, int] | None = None
    """Name (`EXTENDED`) to place; others may be there."""


@dataclass(frozen=True, slots=True)
class SriovProfile:
    """The physical function's SR-IOV. None: the profile does not say."""

    total: int | None = None
    """TotalVFs of the capability."""
    driver_total: int | None = None
    """``sriov_totalvfs``, which a driver may make smaller."""
    first_offset: int | None = None
    stride: int | None = None
    device: int | None = None
    """VF Device ID of the capability."""
    enable: EnableRule | None = None


@dataclass(frozen=True, slots=True)
class Defect:
    """What is known to be wrong with the device."""

    text: str
    source: str
    item: str = ""
    """Item of the profile that shows it, if one does."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """What stands for the device on a virtual host.

    :param qemu: driver of QEMU's device with its *options* (and its own subsystem, if
        *subsystem*); or
    :param shapes: names of named shapes: physical and virtual function.
    """

    qemu: str = ""
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    subsystem: bool = False
    shapes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """A device, as it must be."""

    name: str
    title: str
    source: str
    physical: FunctionProfile
    virtual: FunctionProfile = field(default_factory=FunctionProfile)
    sriov: SriovProfile = field(default_factory=SriovProfile)
    driver: str = ""
    """Linux driver of the physical function: it makes the virtual ones."""
    defects: tuple[Defect, ...] = ()
    stand_in: StandIn = field(default_factory=StandIn)


@dataclass(frozen=True, slots=True)
class SeenFunction:
    """A function as its host shows it."""

    function: PciFunction
    reset: tuple[str, ...] | None = None
    """``reset_method``; None where the kernel does not say (Linux before 5.15)."""


@dataclass(frozen=True, slots=True)
class SeenDevice:
    """A device as its host shows it."""

    physical: SeenFunction | None
    virtual: tuple[SeenFunction, ...] = ()
    driver_total: int | None = None
    """``sriov_totalvfs``; None without the attribute."""
    why_no_physical: str = ""
    why_no_virtual: str = ""
    standalone: bool = False
    """The virtual functions are models of their own: nothing enabled them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One item, looked at."""

    item: str
    answer: Answer
    wanted: str
    found: str = ""
    """What was found, or why nothing could be."""
    defects: tuple[Defect, ...] = ()
    """Known ones that this item shows."""


class Unasked(Exception):
    """It cannot be looked at; the text is why."""


Read = Callable[[SeenFunction], object]

EXTENDED: Final[Mapping[str, int]] = {
    "aer": 0x01, "vc": 0x02, "serial": 0x03, "acs": 0x0D, "ari": 0x0E, "ats": 0x0F, "sriov": 0x10,
    "pri": 0x13, "rebar": 0x15, "ltr": 0x18, "secondary-pcie": 0x19, "pasid": 0x1B, "dpc": 0x1D,
    "l1pm": 0x1E, "ptm": 0x1F, "dvsec": 0x23, "dlf": 0x25, "doe": 0x2E,
}  # fmt: skip
"""Name to id of an extended capability (PCIe 6.0, 7.6 to 7.9)."""


def size_text(size: int) -> str:
    """Return ``128K`` for 131072, and so on."""
    for unit, scale in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if size and size % scale == 0:
            return f"{size // scale}{unit}"
    return str(size)


def _config(seen: SeenFunction, at: int, size: int) -> int:
    data = seen.function.config
    if at + size > len(data):
        raise Unasked(f"only {len(data)} bytes of configuration space can be read (as root more)")
    return int.from_bytes(data[at : at + size], "little")


def _place(seen: SeenFunction, cap_id: int, *, extended: bool) -> int | None:
    last = 0x100 if extended else _HEADER
    if len(seen.function.config) <= last:
        raise Unasked(f"only {len(seen.function.config)} bytes of configuration space can be read")
    for capability in seen.function.capabilities:
        if (capability.id, capability.extended) == (cap_id, extended):
            return capability.offset
    return None


def _read_flr(seen: SeenFunction) -> bool:
    at = _place(seen, _EXPRESS, extended=False)
    return at is not None and bool(_config(seen, at + 4, 4) >> 28 & 1)


def _read_reset(seen: SeenFunction) -> tuple[str, ...]:
    if seen.reset is None:
        raise Unasked("the kernel shows no reset_method (Linux 5.15 and later do)")
    return seen.reset


def _read_msix(seen: SeenFunction) -> int:
    _place(seen, _EXPRESS, extended=False)  # readable at all?
    return seen.function.msix.vectors if seen.function.msix else 0


def _read_msi(seen: SeenFunction) -> int:
    _place(seen, _EXPRESS, extended=False)
    return seen.function.msi.vectors if seen.function.msi else 0


def _read_aer(seen: SeenFunction) -> int | None:
    at = _place(seen, _AER_CAP, extended=True)
    return None if at is None else _config(seen, at + 8, 4)


def _read_capabilities(seen: SeenFunction) -> dict[str, int]:
    there = {name: _place(seen, number, extended=True) for name, number in EXTENDED.items()}
    return {name: place for name, place in there.items() if place is not None}


def _read_bars(seen: SeenFunction) -> dict[int, BarShape]:
    return {
        bar.index: BarShape(bar.size, bar.kind, bar.prefetchable) for bar in seen.function.bars
    }


def _same(wanted: object, found: object) -> bool:
    return wanted == found


def _masked(wanted: object, found: object) -> bool:
    return isinstance(wanted, int) and isinstance(found, int) and not wanted & ~found


def _within(wanted: object, found: object) -> bool:
    assert isinstance(wanted, Mapping) and isinstance(found, Mapping)
    return all(found.get(name) == place for name, place in wanted.items())


def _hex(digits: int) -> Callable[[object], str]:
    return lambda value: "none" if value is None else f"{value:0{digits}x}"


def _bars_text(value: object) -> str:
    assert isinstance(value, Mapping)
    return ", ".join(f"{index}: {shape}" for index, shape in sorted(value.items())) or "none"


def _places_text(value: object) -> str:
    assert isinstance(value, Mapping)
    return ", ".join(f"{name} {place:#x}" for name, place in sorted(value.items())) or "none"


def _pin(value: object) -> str:
    return "none" if not value else f"INT{'?ABCD'[int(str(value))]}"


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _words(value: object) -> str:
    assert isinstance(value, tuple)
    return " ".join(value) or "none"


def _bytes_text(value: object) -> str:
    return size_text(int(str(value))) if value else "none"


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    read: Read
    show: Callable[[object], str] = str
    agrees: Callable[[object, object], bool] = _same


FUNCTION_FIELDS: Final = (
    _Field("id", lambda seen: seen.function.id),
    _Field("class_code", lambda seen: seen.function.class_code, _hex(6)),
    _Field("bars", _read_bars, _bars_text),
    _Field("rom", lambda seen: seen.function.rom_size, _bytes_text),
    _Field("interrupt_pin", lambda seen: seen.function.interrupt_pin, _pin),
    _Field("msi", _read_msi),
    _Field("msix", _read_msix),
    _Field("flr", _read_flr, _yes),
    _Field("reset", _read_reset, _words),
    _Field("aer_masked", _read_aer, _hex(8), _masked),
    _Field("capabilities", _read_capabilities, _places_text, _within),
)
"""One for each field of `FunctionProfile`."""


def check(profile: DeviceProfile, seen: SeenDevice) -> tuple[Finding, ...]:
    """Look at every item of *profile* on a device."""
    found = [
        *_function(PHYSICAL, profile.physical, seen.physical, seen.why_no_physical),
        *_sriov(profile.sriov, seen),
        *_virtual(profile.virtual, seen),
    ]
    shows: dict[str, list[Defect]] = {}
    for defect in profile.defects:
        shows.setdefault(defect.item, []).append(defect)
    return tuple(
        Finding(one.item, one.answer, one.wanted, one.found, tuple(shows.get(one.item, ())))
        for one in found
    )


def items(profile: DeviceProfile) -> tuple[str, ...]:
    """Return the names of what is judged of it."""
    return tuple(one.item for one in check(profile, SeenDevice(None)))


def _function(
    where: str, profile: FunctionProfile, seen: SeenFunction | None, why: str
) -> Iterator[Finding]:
    for one in FUNCTION_FIELDS:
        wanted = getattr(profile, one.name)
        if wanted is not None:
            yield _finding(f"{where}.{one.name}", one, wanted, seen, why)


def _finding(
    item: str, one: _Field, wanted: object, seen: SeenFunction | None, why: str
) -> Finding:
    text = one.show(wanted)
    if seen is None:
        return Finding(item, Answer.UNASKED, text, why or "there is none")
    try:
        found = one.read(seen)
    except Unasked as unasked:
        return Finding(item, Answer.UNASKED, text, str(unasked))
    holds = one.agrees(wanted, found)
    return Finding(item, Answer.HOLDS if holds else Answer.DIFFERS, text, one.show(found))


def _virtual(profile: FunctionProfile, seen: SeenDevice) -> Iterator[Finding]:
    """Judge each virtual function; tell the first that differs, else the first not asked."""
    each = [list(_function(VIRTUAL, profile, one, "")) for one in seen.virtual]
    if not each:
        yield from _function(VIRTUAL, profile, None, seen.why_no_virtual)
        return
    for row in zip(*each, strict=True):
        answers = [one.answer for one in row]
        worst = next((answers.index(a) for a in _WORST_FIRST if a in answers), 0)
        one = row[worst]
        if one.answer is Answer.DIFFERS:
            found = f"{one.found} at {seen.virtual[worst].function.bdf}"
            one = Finding(one.item, one.answer, one.wanted, found)
        yield one


_WORST_FIRST: Final = (Answer.DIFFERS, Answer.UNASKED)


def _sriov_word(seen: SeenDevice, offset: int) -> int:
    if seen.physical is None:
        raise Unasked(seen.why_no_physical or "there is no physical function")
    at = _place(seen.physical, _SRIOV_CAP, extended=True)
    if at is None:
        raise Unasked("the physical function shows no SR-IOV capability")
    return _config(seen.physical, at + offset, 2)


def _driver_total(seen: SeenDevice) -> int:
    if seen.driver_total is None:
        raise Unasked("the function has no sriov_totalvfs here")
    return seen.driver_total


_SriovField = tuple[str, Callable[[SeenDevice], int], Callable[[object], str]]
_SRIOV_FIELDS: Final[tuple[_SriovField, ...]] = (
    ("total", lambda seen: _sriov_word(seen, 0x0E), str),
    ("driver_total", _driver_total, str),
    ("first_offset", lambda seen: _sriov_word(seen, 0x14), str),
    ("stride", lambda seen: _sriov_word(seen, 0x16), str),
    ("device", lambda seen: _sriov_word(seen, 0x1A), _hex(4)),
)


def _sriov(profile: SriovProfile, seen: SeenDevice) -> Iterator[Finding]:
    for name, read, show in _SRIOV_FIELDS:
        wanted = getattr(profile, name)
        if wanted is None:
            continue
        item = f"{SRIOV}.{name}"
        try:
            found = read(seen)
        except Unasked as unasked:
            yield Finding(item, Answer.UNASKED, show(wanted), str(unasked))
            continue
        answer = Answer.HOLDS if found == wanted else Answer.DIFFERS
        yield Finding(item, answer, show(wanted), show(found))
    if profile.first_offset is not None and profile.stride is not None:
        yield _places(profile.first_offset, profile.stride, seen)
    if profile.enable is not None:
        yield _enable(profile.enable, profile.total, seen)


def _places(first: int, stride: int, seen: SeenDevice) -> Finding:
    """Virtual functions lie where first offset and stride put them (PCIe 6.0, 9.2.1.2)."""
    item = f"{SRIOV}.places"
    rule = f"routing id + {first} + n x {stride}"
    if why := _why_not_family(seen):
        return Finding(item, Answer.UNASKED, rule, why)
    assert seen.physical is not None
    found = tuple(one.function.bdf for one in seen.virtual)
    wanted = virtual_functions(seen.physical.function.bdf, len(found), first=first, stride=stride)
    answer = Answer.HOLDS if found == wanted else Answer.DIFFERS
    return Finding(item, answer, f"{rule} = {_bdfs(wanted)}", _bdfs(found))


def _enable(rule: EnableRule, total: int | None, seen: SeenDevice) -> Finding:
    item = f"{SRIOV}.enable"
    most = seen.driver_total if seen.driver_total is not None else total
    wanted = rule.value if most is None else f"{rule.value} of {most}"
    if (why := _why_not_family(seen)) or most is None:
        return Finding(item, Answer.UNASKED, wanted, why or "how many there can be is not known")
    number = len(seen.virtual)
    fits = number == most if rule is EnableRule.ALL_OR_NONE else number <= most
    return Finding(item, Answer.HOLDS if fits else Answer.DIFFERS, wanted, f"{number}")


def _why_not_family(seen: SeenDevice) -> str:
    if seen.physical is None:
        return seen.why_no_physical or "there is no physical function"
    if not seen.virtual:
        return seen.why_no_virtual or "there are no virtual functions"
    if seen.standalone:
        return "the virtual function here is a model that nothing enabled"
    return ""


def _bdfs(found: tuple[Bdf, ...]) -> str:
    if len(found) <= 3:
        return " ".join(map(str, found)) or "none"
    return f"{found[0]} {found[1]} … {found[-1]}"


def of_shapes(physical: SeenFunction, virtual: SeenFunction) -> SeenDevice:
    """Return two models that stand for a device: nothing joins them."""
    return SeenDevice(physical, (virtual,), standalone=True)

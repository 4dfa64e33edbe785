"""``trapline ap plan``: who gets which AP queues, and what the kernel says to it."""

from __future__ import annotations

import re
import tomllib
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.model.ap.definitions import hostdev_xml, mdevctl_json, nodedev_xml
from harness.model.ap.id import IDS
from harness.model.ap.kernel import ApKernel, Traits
from harness.model.ap.lint import remarks_on, remarks_on_plan
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.plan import Free, Guest, Plan, assumed_host, make_plan
from harness.parse.ap_tree import BUS_FILES, read_recording, read_tree
from harness.report.ap_view import script

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_KEYS = {"adapters", "domains", "control_domains", "uuid"}
_WORDS = "for example web=5,6:4,0xab (adapters 5 and 6, domains 4 and 0xab)"
_TREE = (
    *(f"sys/bus/ap/{name}" for name in BUS_FILES),
    "sys/devices/ap/card*/hwtype",
    "sys/devices/ap/card*/config",
    "sys/devices/ap/card*/chkstop",
    "sys/devices/ap/card*/ap_functions",
    "sys/devices/ap/card*/*.*/config",
    "sys/devices/ap/card*/*.*/chkstop",
    "sys/devices/ap/card*/*.*/status",
    "sys/devices/ap/card*/*.*/driver_override",
    "sys/devices/vfio_ap/matrix/features",
    "sys/devices/vfio_ap/matrix/*-*/matrix",
    "sys/devices/vfio_ap/matrix/*-*/guest_matrix",
    "sys/devices/vfio_ap/matrix/*-*/control_domains",
    "sys/devices/vfio_ap/matrix/*-*/ap_config",
)
"""What is read of a host's sysfs; nothing there is opened for writing."""


def read_wish(words: Iterable[str]) -> tuple[Guest, ...]:
    """Read guests from words ``NAME=ADAPTERS:DOMAINS[:CONTROL]`` and TOML files.

    :raise ConfigError: a word is neither, or two guests have one name or UUID.
    """
    guests: list[Guest] = []
    for word in words:
        if "=" in word:
            guests.append(_guest_of_word(word))
        else:
            guests += _guests_of_file(Path(word))
    for number, guest in enumerate(guests):
        for other in guests[:number]:
            if guest.name == other.name or guest.uuid == other.uuid:
                raise ConfigError(
                    f"two guests are called {guest.name}"
                    if guest.name == other.name
                    else f"guests {other.name} and {guest.name} have one UUID",
                    hint="give each its own",
                )
    return tuple(guests)


def parse_ids(text: str, what: str) -> tuple[int, ...]:
    """Read ``5,6,0xab,8-11``: decimal or 0x hexadecimal, ranges inclusive; empty: none.

    :raise ConfigError: it is something else, or above 255.
    """
    found: list[int] = []
    for part in text.split(",") if text.strip() else []:
        first, dash, last = part.strip().partition("-")
        if dash and not (first and last):
            raise ConfigError(
                f"{what} {part!r} is half a range", hint="write both ends, for example 8-11"
            )
        low = _number(first, what)
        high = _number(last, what) if dash else low
        if high < low:
            raise ConfigError(f"{what} {part!r} runs backwards", hint=f"write {high}-{low}")
        found += range(low, high + 1)
    return tuple(found)


def parse_version(text: str) -> tuple[int, ...]:
    """Read ``6.12`` or ``7.2.12``.

    :raise ConfigError: it is no version.
    """
    match = re.match(r"\d+(\.\d+)+", text)
    if match is None:
        raise ConfigError(f"{text!r} is no kernel version", hint="for example --kernel 6.12")
    return tuple(int(part) for part in match[0].split("."))


def read_host(place: Path, kernel: str) -> ApKernel:
    """Read the state of a host from its sysfs: live (``/``), copied, or recorded in one file.

    :raise ConfigError: there is no such place, or no AP bus in it.
    :raise ParseError: a file is not what it should be.
    """
    if place.is_file():
        files = read_recording(place.read_text(errors="replace"))
    elif place.is_dir():
        files = _files_below(place)
    else:
        raise ConfigError(
            f"there is no {place}", hint="give / for this host, a copy or a recording"
        )
    if "sys/bus/ap/apmask" not in files:
        raise ConfigError(
            f"{place} has no AP bus",
            seen="no sys/bus/ap/apmask in it",
            hint="this needs IBM Z with Linux 4.19 or later, or a copy of its sysfs",
        )
    return read_tree(files, parse_version(kernel))


def _files_below(directory: Path) -> dict[str, str]:
    files: dict[str, str] = {}
    for pattern in _TREE:
        for path in directory.glob(pattern):
            files[str(path.relative_to(directory))] = path.read_text(errors="replace")
    for queue in directory.glob("sys/devices/ap/card*/*.*"):
        link = queue / "driver"
        # A copied link leads nowhere; its last part is the driver all the same.
        if link.is_symlink():
            files[str(link.relative_to(directory))] = link.readlink().name
    return files


def plan(
    guests: Sequence[Guest], *, free: Free, kernel: str, host: ApKernel | None = None
) -> Plan:
    """Plan for *guests* on *host*, or on one that has just what they wish for."""
    traits = Traits.of_version(parse_version(kernel))
    return make_plan(guests, host or assumed_host(guests, traits), free)


def write_files(made: Plan, directory: Path) -> list[Path]:
    """Write the script and the definitions of *made*; return the files.

    :raise ConfigError: they cannot be written.
    """
    texts = {"sysfs.sh": script(made)}
    for guest in made.guests:
        texts[f"nodedev-{guest.name}.xml"] = nodedev_xml(guest)
        texts[f"hostdev-{guest.name}.xml"] = hostdev_xml(guest)
        texts[f"mdevctl-{guest.name}.json"] = mdevctl_json(guest)
    paths = []
    for name, text in texts.items():
        paths.append(write_text(directory / name, text))
    return paths


def write_text(path: Path, text: str) -> Path:
    """Write *text* to *path*, directories included.

    :raise ConfigError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}", seen=str(error)) from error
    return path


def as_json(made: Plan) -> dict[str, object]:
    """Return a plan for machines: masks, steps with their errno, definitions, what is odd."""
    remarks = remarks_on_plan(made) if made.guests else remarks_on(made.start)
    return {
        "apmask": str(made.end.apmask),
        "aqmask": str(made.end.aqmask),
        "guests": [
            {
                "name": guest.name,
                "uuid": guest.uuid,
                "matrix": guest.matrix.matrix_text().split(),
                "control_domains": guest.matrix.control_domains_text().split(),
                "guest_matrix": mdev.shadow.matrix_text().split()
                if (mdev := made.end.mdev(guest.uuid)) is not None
                else [],
                "nodedev": nodedev_xml(guest),
                "hostdev": hostdev_xml(guest),
                "mdevctl": mdevctl_json(guest),
            }
            for guest in made.guests
        ],
        "steps": [
            {
                "guest": step.guest,
                "command": step.command,
                "errno": None if step.errno is None else str(step.errno),
                "why": step.why,
            }
            for step in made.steps
        ],
        "remarks": [
            {
                "weight": remark.weight.name.lower(),
                "where": remark.where,
                "what": remark.what,
                "next": remark.next,
            }
            for remark in remarks
        ],
    }


def _guest_of_word(word: str) -> Guest:
    name, _, rest = word.partition("=")
    parts = rest.split(":")
    if not 2 <= len(parts) <= 3:
        raise ConfigError(f"{word!r} is no guest: NAME=ADAPTERS:DOMAINS[:CONTROL]", hint=_WORDS)
    adapters = parse_ids(parts[0], "adapters")
    domains = parse_ids(parts[1], "domains")
    control = domains if len(parts) == 2 else parse_ids(parts[2], "control domains")
    return _guest(name, ApMatrix.of(adapters, domains, control))


def _guests_of_file(path: Path) -> list[Guest]:
    try:
        wish = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = f"give a TOML file, or a guest: {_WORDS}"
        raise ConfigError(f"cannot read {path}", seen=str(error), hint=hint) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML", seen=str(error)) from error
    tables = wish.get("guest")
    if set(wish) != {"guest"} or not isinstance(tables, dict) or not tables:
        raise ConfigError(
            f"{path} names no guests", hint="write [guest.NAME] with adapters and domains"
        )
    return [_guest_of_table(name, table, path) for name, table in tables.items()]


def _guest_of_table(name: str, table: object, path: Path) -> Guest:
    if not isinstance(table, dict) or (unknown := set(table) - _KEYS):
        what = sorted(unknown) if isinstance(table, dict) else table
        raise ConfigError(
            f"{path}: guest {name} has {what}", hint=f"known are {', '.join(sorted(_KEYS))}"
        )
    domains = _ids_of(table.get("domains", []), f"{path}: guest {name}: domains")
    adapters = _ids_of(table.get("adapters", []), f"{path}: guest {name}: adapters")
    control = domains
    if "control_domains" in table:
        control = _ids_of(table["control_domains"], f"{path}: guest {name}: control_domains")
    return _guest(name, ApMatrix.of(adapters, domains, control), str(table.get("uuid", "")))


def _ids_of(value: object, what: str) -> tuple[int, ...]:
    """Read a list of numbers and texts, or one text."""
    if isinstance(value, str):
        return parse_ids(value, what)
    if not isinstance(value, list):
        raise ConfigError(f"{what}: {value!r} is no list", hint='write [4, 0xab] or "4,0xab"')
    return tuple(number for one in value for number in parse_ids(str(one), what))


def _guest(name: str, matrix: ApMatrix, identifier: str = "") -> Guest:
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"{name!r} is no name for a guest", hint=_WORDS)
    if identifier:
        try:
            identifier = str(uuid.UUID(identifier))
        except ValueError as error:
            raise ConfigError(
                f"guest {name}: {identifier!r} is no UUID", hint="uuidgen makes one"
            ) from error
    return Guest.of(name, matrix, identifier)


def _number(text: str, what: str) -> int:
    # int(…, 0) refuses 04, which the kernel takes for octal; nobody should have to guess.
    try:
        number = int(text, 0)
    except ValueError as error:
        raise ConfigError(
            f"{what}: {text!r} is no number",
            hint="write decimal without zeros before it, or hexadecimal with 0x",
        ) from error
    if not 0 <= number < IDS:
        raise ConfigError(f"{what}: {text} is not 0 to {IDS - 1}")
    return number

"""Where a memory map comes from: a file, standard input, or the QMP socket of a running QEMU."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import ConfigError, ParseError, QmpFailed
from harness.machine.qmp import Qmp
from harness.model.memory_map import MemoryMap
from harness.model.memory_map_json import map_from_dict
from harness.model.memory_tree import MemoryTree
from harness.parse.mtree import OptionRefused, parse_mtree, parse_mtree_session

# The most telling first; what an old QEMU does not know is left out (MT-06).
FLAT_COMMANDS: Final = ("info mtree -f -o", "info mtree -f")
TREE_COMMAND: Final = "info mtree"
GREETING_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class MapSource:
    """What a source held: a map, a tree, or both of one machine."""

    where: str
    map: MemoryMap | None = None
    tree: MemoryTree | None = None
    warnings: tuple[str, ...] = ()


def read_source(source: str) -> MapSource:
    """Read *source*: a path, ``-`` for standard input, ``unix:PATH`` for a QMP socket.

    A text may be the record of a monitor (also both forms of ``info mtree`` in one), the JSON
    of an evidence file, or the JSON that QMP returned.

    :raise ConfigError: it cannot be read, or is not one map.
    :raise QmpFailed: the socket does not speak QMP, or QEMU refused.
    :raise ParseError: what QEMU said on the socket is no map.
    """
    if source.startswith("unix:"):
        return read_qmp(Path(source.removeprefix("unix:")))
    where, raw = _read_text(source)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not text", seen=str(error), hint=_WANTED) from error
    try:
        return read_map_text(text, where=where)
    except ParseError as error:
        raise ConfigError(error.summary, seen=error.text, hint=error.hint or _WANTED) from error


_WANTED = "give a text that holds the answer of 'info mtree -f -o', or unix:PATH of a QMP socket"


def _read_text(source: str) -> tuple[str, bytes]:
    if source == "-":
        return "standard input", sys.stdin.buffer.read()
    path = Path(source)
    try:
        if path.is_socket():
            raise ConfigError(
                f"{source} is a socket, not a file", hint=f"to ask a running QEMU: unix:{source}"
            )
        return source, path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the map {source}", seen=error.strerror or str(error), hint=_WANTED
        ) from error


def read_map_text(text: str, *, where: str) -> MapSource:
    """Read a map from text in any of its forms.

    :raise ConfigError: more than one map.
    :raise ParseError: no map.
    """
    if text.lstrip()[:1] in ("{", '"'):
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ConfigError(
                f"{where} begins like JSON and is none", seen=str(error), hint=_WANTED
            ) from error
        if isinstance(data, dict) and "return" in data:
            data = data["return"]
        if not isinstance(data, str):
            return MapSource(where, map=map_from_dict(data, where=where))
        text = data
    dumps = parse_mtree_session(text, where=where)
    maps = [dump.map for dump in dumps if dump.map is not None]
    trees = [dump.tree for dump in dumps if dump.tree is not None]
    if len(maps) > 1 or len(trees) > 1:
        raise ConfigError(
            f"{where} holds {len(maps)} flat maps and {len(trees)} trees",
            hint="keep one of each at most, of the same moment",
        )
    return MapSource(
        where,
        map=maps[0] if maps else None,
        tree=trees[0] if trees else None,
        warnings=tuple(warning for dump in dumps for warning in dump.warnings),
    )


def read_qmp(path: Path) -> MapSource:
    """Ask the QEMU behind the QMP socket at *path*; the VM is not paused.

    The tree is asked for too, for it names the BARs of assigned devices. The two are taken
    one after the other, so a guest that moves a BAR in between shows in neither or in one.

    :raise ConfigError: no such socket, or nobody listens.
    :raise QmpFailed: what answers is not QMP, or QEMU refused.
    """
    stream = _connected(path)
    qmp = Qmp(f"QMP socket {path}", Path(os.devnull))
    try:
        try:
            qmp.connect(stream, timeout=GREETING_SECONDS)
        except QmpFailed as error:
            raise QmpFailed(
                f"{path} does not speak QMP, or serves another client",
                description=error.description
                or f"no greeting within {GREETING_SECONDS:g} s; a QMP socket has one client"
                " at a time",
            ) from error
        flat = ask_flat(qmp.hmp, where=str(path))
        tree = parse_mtree(qmp.hmp(TREE_COMMAND), where=f"{path}: {TREE_COMMAND}")
    finally:
        qmp.close()
        stream.close()
    return MapSource(str(path), flat.map, tree.tree, flat.warnings + tree.warnings)


def ask_flat(hmp: Callable[[str], str], *, where: str) -> MapSource:
    """Ask for the flat form with as many options as QEMU knows.

    :param hmp: executes one monitor command and returns its text.
    :raise OptionRefused: QEMU is older than 2.9 and has no flat form.
    """
    with_owners, plain = FLAT_COMMANDS
    try:
        dump = parse_mtree(hmp(with_owners), where=f"{where}: {with_owners}")
    except OptionRefused:
        dump = parse_mtree(hmp(plain), where=f"{where}: {plain}")
    return MapSource(where, map=dump.map, warnings=dump.warnings)


def _connected(path: Path) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.settimeout(GREETING_SECONDS)
        stream.connect(os.fspath(path))
    except OSError as error:
        stream.close()
        raise ConfigError(
            f"cannot connect to the QMP socket {path}",
            seen=error.strerror or str(error),
            hint="start QEMU with -qmp unix:PATH,server=on,wait=off and give that PATH",
        ) from error
    return stream

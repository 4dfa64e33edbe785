"""Judge a memory map by a file: is this device mapped as it must be?

The file is a `VfioCase` in JSON: the function as its host sees it, where its BARs decode in
the guest, versions and options. The format is in `harness.model.vfio.case_json`. A capture of
the map and this file, from any machine and any time, are all the judge needs.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from harness.errors import ConfigError, ParseError
from harness.model.expectation import Expectation
from harness.model.memory_map import AddressSpace, MemoryMap
from harness.model.pci import Bdf
from harness.model.vfio.case import VfioCase
from harness.model.vfio.case_json import case_from_dict
from harness.model.vfio.expectation import expect_vfio


def read_case(path: Path) -> VfioCase:
    """Read the file at *path*.

    :raise ConfigError: it cannot be read.
    :raise ParseError: it is no JSON, or not in the format.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}", seen=str(error)) from error
    try:
        return case_from_dict(json.loads(text))
    except ValueError as error:
        raise ParseError(str(error), text=text[:200], where=str(path)) from error


def expectation_of_file(device: str, path: Path, page: int | None = None) -> Expectation:
    """Return what the file at *path* makes one expect of *device*.

    :param device: address of the function or prefix of its region names; anything else is its
        ``id=``, and owners are judged too, where the map has them. Empty: as the file says.
    :param page: page size of the host, if not that of the file.
    :raise ConfigError: it cannot be read, or is of another function.
    :raise ParseError: it is not in the format, or contradicts itself.
    """
    case = read_case(path)
    if device and device != case.prefix:
        case = _addressed(case, device, path)
    if page is not None:
        case = replace(case, page=page)
    try:
        return expect_vfio(case)
    except ValueError as error:
        raise ParseError(str(error), text=f"device {case.prefix}", where=str(path)) from error


def _addressed(case: VfioCase, device: str, path: Path) -> VfioCase:
    try:
        bdf = Bdf.parse(device)
    except ValueError:
        return replace(case, device_id=device)
    if bdf != case.function.bdf:
        raise ConfigError(
            f"{path} does not describe {device}",
            seen=f"it describes {case.prefix}",
            evidence=path,
            hint="name that function, or take a file made for this one",
        )
    return case


def _with_memory(memory_map: MemoryMap) -> MemoryMap:
    """Take the only view as guest memory if it has lost its names, as published ones have."""
    views = memory_map.views
    if len(views) == 1 and not views[0].spaces:
        return MemoryMap((replace(views[0], spaces=(AddressSpace("memory"),)),))
    return memory_map


def judge_file(memory_map: MemoryMap, device: str, path: Path, page: int | None = None) -> str:
    """Return how *memory_map* differs from what the file expects of *device*, '' if it does not.

    :raise ConfigError: see `expectation_of_file`.
    :raise ParseError: the same; or the map has no view of guest memory.
    """
    expectation = expectation_of_file(device, path, page)
    try:
        return expectation.explain(_with_memory(memory_map))
    except KeyError as error:
        raise ParseError(
            "the map holds no view of guest memory", text=str(error.args[0]), where="memory map"
        ) from error

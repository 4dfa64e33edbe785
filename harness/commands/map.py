"""``trapline map``: show who answers at which address of a machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.commands.map_source import MapSource, read_source
from harness.errors import ConfigError, ParseError
from harness.model.device_windows import (
    DeviceWindow,
    device_rows,
    device_windows,
    known_devices,
    named_device,
)
from harness.model.memory_map import AddressSpace, FlatView, MemoryMap
from harness.model.memory_map_json import map_to_dict, region_to_dict
from harness.model.memory_tree import BarWindow, MemoryTree
from harness.report.map_view import (
    WindowReport,
    device_lines,
    map_lines,
    tree_lines,
    window_report,
)

DEFAULT_PAGE = 4096


def page_size(text: str) -> int:
    """Read a page size: ``4096``, ``0x10000``, ``64k``.

    :raise ConfigError: it is none.
    """
    scale = 1024 if text[-1:] in ("k", "K") else 1
    try:
        size = int(text.rstrip("kK"), 0) * scale
    except ValueError:
        size = 0
    if size <= 0 or size & (size - 1):
        raise ConfigError(f"not a page size: {text}", hint="give 4096, 0x10000 or 64k, say")
    return size


def show_map(
    source: str,
    *,
    device: str | None = None,
    expect: Path | None = None,
    as_json: bool = False,
    page: int | None = None,
    console: Console,
) -> bool:
    """Print the map in *source*; return False if it differs from what is expected.

    :param source: a path, ``-``, or ``unix:PATH`` of a QMP socket.
    :param device: show the BARs of this device: its id (needs the owners of ``-o``), or the
        name in its region names (``0000:03:00.0``).
    :param expect: JSON of the function as its host sees it; the map of *device* is compared
        with what must be.
    :param page: bytes, a power of two, the page size of the host that QEMU runs on; None:
        4096, and for the comparison what the JSON says.
    :raise ConfigError: a file cannot be read, is no map, or has no such device.
    :raise HarnessError: QEMU does not say it.
    """
    shown_page = DEFAULT_PAGE if page is None else page
    if expect is not None and device is None:
        raise ConfigError("--expect needs --device: which device of the map to compare")
    if expect is not None and as_json:
        raise ConfigError("--expect explains in words; it does not go with --json")
    read = read_source(source)
    for warning in read.warnings:
        Console(stderr=True).print(Text(f"{read.where}: {warning}"), soft_wrap=True)
    if device is None:
        _print(console, _whole_json(read) if as_json else _whole(read))
        return True
    memory_map = _memory_named(_flat(read))
    reports = _reports(read, memory_map, device, shown_page)
    if not reports and expect is None:
        raise _absent(memory_map, device, read.where)
    if as_json:
        _print(console, _device_json(device, reports, shown_page))
    else:
        _print(console, device_lines(device, reports, shown_page))
    return expect is None or _judge(memory_map, device, expect, page, console)


def _print(console: Console, lines: Iterable[Text]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


def _flat(read: MapSource) -> MemoryMap:
    if read.map is None:
        raise ConfigError(
            f"{read.where} holds only the tree form, which does not tell who answers",
            hint="give the answer of 'info mtree -f -o'",
        )
    return read.map


def _whole(read: MapSource) -> Iterator[Text]:
    if read.map is not None:
        yield from map_lines(read.map)
    elif read.tree is not None:
        yield from tree_lines(read.tree)


def _whole_json(read: MapSource) -> Iterator[Text]:
    yield Text(json.dumps(map_to_dict(_flat(read)), indent=1))


def _memory_named(memory_map: MemoryMap) -> MemoryMap:
    """Return the map with an excerpt of a single nameless view taken for guest memory."""
    if len(memory_map.views) != 1 or memory_map.views[0].spaces:
        return memory_map
    (view,) = memory_map.views
    return MemoryMap((replace(view, spaces=(AddressSpace("memory", view.root or ""),)),))


def _memory(memory_map: MemoryMap, where: str) -> FlatView:
    try:
        return memory_map.memory
    except KeyError as error:
        raise ConfigError(
            f"{where} does not show guest memory",
            seen=str(error.args[0]),
            hint="give the whole answer of 'info mtree -f -o'",
        ) from error


def _ports(memory_map: MemoryMap) -> FlatView | None:
    return next((view for view in memory_map if "I/O" in view.names), None)


def _bars(tree: MemoryTree, view: FlatView, device: str) -> tuple[BarWindow, ...]:
    """Return the BARs of *device* that answer in *view*; the tree lists memory and ports."""
    rows = device_rows(view, device)
    names = {device} | {name for row in rows if (name := named_device(row)) is not None}
    return tuple(
        window
        for name in sorted(names)
        for window in tree.bar_windows(name)
        if any(row.range.overlaps(window.range) for row in rows)
    )


def _reports(
    read: MapSource, memory_map: MemoryMap, device: str, page: int
) -> tuple[WindowReport, ...]:
    memory, ports = _memory(memory_map, read.where), _ports(memory_map)
    found: list[tuple[FlatView, DeviceWindow]] = []
    for view in (memory,) if ports is None else (memory, ports):
        windows = device_windows(
            view,
            device,
            page=page,
            port=view is ports,
            bars=() if read.tree is None else _bars(read.tree, view, device),
        )
        found += [(view, window) for window in windows]
    return tuple(window_report(view, window, device, page) for view, window in found)


def _absent(memory_map: MemoryMap, device: str, where: str) -> ConfigError:
    known = ", ".join(known_devices(memory_map))
    if known:
        return ConfigError(
            f"no row of {device!r} in {where}",
            seen=f"devices in this map: {known}",
            hint="a device whose BARs are not programmed, or not enabled, has no rows",
        )
    return ConfigError(
        f"no row of {device!r} in {where}",
        seen="no device is named in this map",
        hint="take it with 'info mtree -f -o', and give each -device an id",
    )


def _device_json(device: str, reports: Iterable[WindowReport], page: int) -> Iterator[Text]:
    plain = {
        "device": device,
        "page": page,
        "windows": [
            {
                "bar": report.window.bar,
                "range": str(report.window.range),
                "port": report.window.port,
                "rows": [region_to_dict(row) for row in report.rows],
                "pages": [
                    {"range": str(run.range), "class": run.page_class.value} for run in report.runs
                ],
            }
            for report in reports
        ],
    }
    yield Text(json.dumps(plain, indent=1))


def _judge(
    memory_map: MemoryMap, device: str, path: Path, page: int | None, console: Console
) -> bool:
    """Compare with the expectation; print what it says. True if nothing differs."""
    from harness.report.expect_view import judge_file

    try:
        difference = judge_file(memory_map, device, path, page)
    except ParseError as error:  # of the file: it must not look like a difference
        raise ConfigError(
            error.summary,
            seen=error.text,
            hint=error.hint or "repair what the first line names",
        ) from error
    _print(console, (Text(), Text(difference or f"{device} is mapped as expected.")))
    return not difference

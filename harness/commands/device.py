"""``trapline device serve``: a file with a device in it, served until somebody says stop."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from harness.device.access_log import Access
from harness.device.device import Device
from harness.device.server import Served, serve
from harness.errors import ConfigError, HarnessError

_REGIONS = {6: "ROM", 7: "configuration space"}
_POLL = 0.1
_MODULES = "trapline_device_"
"""What the names of such modules begin with, so that none hides one of Python's."""


def load_device(file: Path, name: str = "") -> type[Device]:
    """Return the device class that *file* defines; *name* chooses among several.

    :raise ConfigError: it cannot be loaded, defines none, or several and *name* is empty.
    """
    spec = importlib.util.spec_from_file_location(f"{_MODULES}{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ConfigError(f"{file}: not a Python file", hint="for example examples/doorbell.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for the names in annotations
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{file}: {type(error).__name__}: {error}") from error
    found = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Device) and value.__module__ == spec.name
    }
    if name:
        found = {key: value for key, value in found.items() if key == name}
    if len(found) == 1:
        return next(iter(found.values()))
    what = f"no device {name}" if name else f"{len(found)} devices"
    raise ConfigError(
        f"{file}: {what}",
        seen=" ".join(found),
        hint="a device is a subclass of harness.device.device.Device; --name chooses",
    )


def serve_file(
    file: Path,
    *,
    name: str = "",
    socket: Path | None = None,
    once: bool = False,
    stop: threading.Event | None = None,
) -> Iterator[str]:
    """Serve the device of *file*; yield lines for a person until it ends.

    :param once: end when the first client has gone.
    :param stop: ends it from another thread.
    :raise ConfigError: the file has no device, it or the socket cannot be made.
    """
    device = _made(load_device(file, name), file)
    stop = stop or threading.Event()
    with serve(device, socket) as served:
        yield f"{type(device).__name__} {device.id} on {served.socket}"
        yield f"qemu-system-x86_64 … -device '{served.qemu_device}'"
        yield from _follow(served, once=once, stop=stop)
        yield from summary(served)


def _made(kind: type[Device], file: Path) -> Device:
    try:
        return kind()
    except HarnessError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{file}: no {kind.__name__} can be made: {type(error).__name__}: {error}",
            hint="it is made without arguments",
        ) from error


def summary(served: Served) -> Iterator[str]:
    """Yield what reached a device: accesses by region, resets, what was wrong."""
    yield f"{served.accesses.total} accesses in {served.clients} connections"
    counts = served.accesses.counts
    order = sorted(counts.items(), key=lambda item: item[0])
    for region, rows in itertools.groupby(order, key=lambda item: item[0].region):
        listed = list(rows)
        yield f"  {_REGIONS.get(region, f'BAR {region}')}: {sum(n for _, n in listed)}"
        if region < 6:
            yield from (f"    {_row(access)}  {count:>6}" for access, count in listed[:20])
    if served.resets:
        causes = ", ".join(f"{n} by {cause}" for cause, n in served.device.resets.items())
        yield f"  resets: {causes}"
    for error in served.peer_errors:
        yield f"  refused: {error}"
    for failure in served.failures:
        yield f"  failed: {type(failure).__name__}: {failure}"


def _row(access: Access) -> str:
    return f"{access.operation:<9} {access.offset:#06x} {access.width}"


def _follow(served: Served, *, once: bool, stop: threading.Event) -> Iterator[str]:
    """Yield a line when a client comes and when it goes."""
    told = gone = 0
    while not stop.wait(_POLL):
        came = served.clients
        if came > told:
            told = came
            yield f"client {told} has connected"
        if told > gone and not served.serving:
            gone = told
            yield f"client {gone} has gone"
        if once and gone:
            return

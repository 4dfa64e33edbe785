"""Addresses in a kernel: found by one boot, kept for as long as the kernel is the same file.

With ``nokaslr`` they are the same in every boot. Distributions ship no System.map that says
them; ``/proc/kallsyms`` does.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import paths
from harness.errors import HostError

log = logging.getLogger(__name__)

_FORMAT = 1
_WANTED = {
    "illegal_op": ("illegal_op",),
    "sclp": ("sclp",),
    "sie": ("__sie64a", "sie64a"),
}
_LINE = re.compile(r"([0-9a-f]{8,16}) \S (\S+)")


@dataclass(frozen=True, slots=True)
class Symbols:
    """Addresses that an AP host needs.

    :param illegal_op: every illegal operation of the kernel comes here.
    :param sclp: ``struct sclp_info``; 0 if the kernel does not list data: then there is no kvm.
    :param sie: the function that runs guests; 0 if the kernel has none.
    """

    illegal_op: int
    sclp: int = 0
    sie: int = 0


def parse_kallsyms(text: str) -> Symbols:
    """Read ``/proc/kallsyms``.

    :raise HostError: it hides addresses, or the kernel handles illegal operations elsewhere.
    """
    names = {name: what for what, known in _WANTED.items() for name in known}
    found: dict[str, int] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is not None and match[2] in names:
            found.setdefault(names[match[2]], int(match[1], 16))
    if not found.get("illegal_op"):
        seen = "it is there, without an address" if "illegal_op" in found else "no such symbol"
        raise HostError(
            "the kernel of the AP host does not say where illegal_op() is",
            seen=f"{seen}, among {text.count(chr(10))} lines",
            hint="kernel.kptr_restrict must be 0, and CONFIG_KALLSYMS on",
        )
    return Symbols(**found)


def remembered_symbols(key: str, discover: Callable[[], Symbols]) -> Symbols:
    """Return what is kept under *key*, a hash of the kernel; *discover* it if nothing is."""
    file = _file(key)
    try:
        kept = json.loads(file.read_text(encoding="ascii"))
        if kept.pop("format") == _FORMAT:
            return Symbols(**kept)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s is damaged and is made again: %s", file, error)
    symbols = discover()
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="ascii") as new:
        json.dump({"format": _FORMAT, **asdict(symbols)}, new)
    os.replace(new.name, file)
    return symbols


def forget_symbols(key: str) -> None:
    """Find them again next time: they led nowhere."""
    _file(key).unlink(missing_ok=True)


def _file(key: str) -> Path:
    return paths.cache_dir() / "ap-symbols" / f"{key}.json"

"""The benchmarks there are, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.bench.cold import cold
from harness.bench.laboratory import Laboratory
from harness.bench.model import Benchmark
from harness.bench.parse import parse
from harness.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Entry:
    """A benchmark that can be made."""

    about: str
    make: Callable[[Laboratory], Benchmark]


CATALOGUE: Mapping[str, Entry] = {
    "cold": Entry("cold boot of a virtual host to the first result of a command", cold),
    "parse": Entry("info mtree of a machine with 32 devices to a map", parse),
}


def choose(names: Sequence[str]) -> list[str]:
    """Return *names*, each once, or all.

    :raise ConfigError: there is no such benchmark.
    """
    for name in names:
        if name not in CATALOGUE:
            raise ConfigError(
                f"no benchmark is called {name!r}", hint=f"there are {', '.join(CATALOGUE)}"
            )
    return list(dict.fromkeys(names)) or list(CATALOGUE)

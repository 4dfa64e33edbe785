"""The benchmarks there are, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from harness.bench.cold import cold
from harness.bench.kernels import kernels
from harness.bench.laboratory import Laboratory
from harness.bench.memory import memory
from harness.bench.model import Benchmark
from harness.bench.nested import nested
from harness.bench.overhead import overhead
from harness.bench.parse import parse
from harness.bench.restore import restore
from harness.bench.scale import scale
from harness.bench.suite import suite
from harness.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Entry:
    """A benchmark that can be made."""

    about: str
    make: Callable[[Laboratory, ExitStack], Benchmark]
    """What it opens for all rounds is closed by the stack."""
    by_default: bool = True


def _alone(
    make: Callable[[Laboratory], Benchmark],
) -> Callable[[Laboratory, ExitStack], Benchmark]:
    return lambda lab, _: make(lab)


CATALOGUE: Mapping[str, Entry] = {
    "cold": Entry("cold boot of a virtual host to the first result of a command", _alone(cold)),
    "kernels": Entry(
        "cold boot by kernel: compiled here or Debian's (only when named)", _alone(kernels), False
    ),
    "memory": Entry("private memory of idle hosts, bytes of states", _alone(memory)),
    "nested": Entry("from nothing to a verdict about a nested guest's nvme", _alone(nested)),
    "overhead": Entry("what the harness adds to a test and to a refusal", overhead),
    "parse": Entry("info mtree of a machine with 32 devices to a map", _alone(parse)),
    "restore": Entry("saved virtual host to the first result of a command", _alone(restore)),
    "scale": Entry("what more tests cost, in one process and side by side", _alone(scale)),
    "suite": Entry("the default run of all suites (only when named)", _alone(suite), False),
}


def choose(names: Sequence[str]) -> list[str]:
    """Return *names*, each once, or all that run by default.

    :raise ConfigError: there is no such benchmark.
    """
    for name in names:
        if name not in CATALOGUE:
            raise ConfigError(
                f"no benchmark is called {name!r}", hint=f"there are {', '.join(CATALOGUE)}"
            )
    return list(dict.fromkeys(names)) or [
        name for name, entry in CATALOGUE.items() if entry.by_default
    ]

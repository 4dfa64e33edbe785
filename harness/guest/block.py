"""Reading and writing a block device of a system with known patterns, past every cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.guest.system import System, parse_pairs


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A block device of *system*, accessed with O_DIRECT."""

    system: System
    path: str

    def holds(self, seed: int, *, offset: int, length: int) -> bool:
        """Say whether it holds `harness.model.pattern.pattern` (*seed*) there."""
        said = self.system.probe(
            "block", "read", self.path, offset, length, "--pattern", seed, timeout=120
        )
        return said["match"] == "yes"

    def ask(self, seed: int, *, offset: int, length: int) -> Callable[[], bool]:
        """Begin to read; call what is returned to wait for the answer that `holds` would give."""
        talk = self.system.converse("block", "read", self.path, offset, length, "--pattern", seed)

        def answer() -> bool:
            said: dict[str, str] = {}
            try:
                while "match" not in said:
                    said |= parse_pairs(talk.receive(timeout=60))
            finally:
                talk.close()
            return said["match"] == "yes"

        return answer

    def fill(self, seed: int, *, offset: int, length: int) -> None:
        """Write the pattern *seed* there."""
        self.system.probe(
            "block", "write", self.path, offset, length, "--pattern", seed, timeout=120
        )

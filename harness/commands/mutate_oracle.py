"""``trapline shapes --mutate-oracle``: the oracle without each of its rules, and who notices."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from harness import process
from harness.commands.shapes import default_build
from harness.shapes.generate import keep_files_in_cache
from harness.shapes.mutants import UNREACHABLE
from harness.shapes.notice import Notice, notices


@dataclass(frozen=True, slots=True)
class Noticed:
    """What came out of all mutants."""

    qemu: str
    seed: int
    found: tuple[Notice, ...]

    @property
    def all_noticed(self) -> bool:
        """Say whether none went unnoticed."""
        return all(notice.said for notice in self.found)

    def lines(self) -> list[str]:
        """Return the table."""
        missed = sum(not notice.said for notice in self.found)
        slowest = max((notice.seconds for notice in self.found), default=0.0)
        lines = [f"the oracle without one rule, {self.qemu}, seed {self.seed}"]
        lines += [f"  {notice.line()}" for notice in self.found]
        lines.append(
            f"{len(self.found)} mutants, {missed} not noticed, the slowest after {slowest:.1f} s"
        )
        lines += ["not reachable by shapes:"]
        return lines + [f"  {rule:<7} {reason}" for rule, reason in UNREACHABLE.items()]


def run(qemu: str | None, seed: int, seconds: float, console: Console) -> Noticed:
    """Switch each rule off in turn, and judge shapes until one disagrees.

    :param seconds: for each.
    :raise ConfigError: the build has no ``vfio-user-pci``.
    """
    build = default_build(qemu)
    keep_files_in_cache()
    process.stop_like_ctrl_c()
    found: list[Notice] = []
    for notice in notices(build, seed, seconds):
        found.append(notice)
        console.print(notice.line(), highlight=False, markup=False, soft_wrap=True)
    return Noticed(f"{build.label} {build.version}", seed, tuple(found))

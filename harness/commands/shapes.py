"""``trapline shapes``: devices that could exist, put into a real QEMU and judged by the oracle."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from harness import process
from harness.errors import ConfigError
from harness.images.qemu_build import QemuBuild
from harness.report.rundir import RunDirectory
from harness.settings import find_file, load_settings
from harness.shapes.areas import NoRoom, how_many_fit
from harness.shapes.bench import LABEL, MOST
from harness.shapes.builds import build_with_vfio_user, first_with_vfio_user
from harness.shapes.generate import keep_files_in_cache
from harness.shapes.observe import Observation, observe_together
from harness.shapes.picture import picture
from harness.shapes.pool import Here, Judge, Plan, Pool
from harness.shapes.run import ChunkResult, Failure
from harness.shapes.shape import Shape
from harness.shapes.shape_json import ShapeFile, read_shapes

COUNT: Final = 1000
"""Shapes that are judged unless told otherwise."""
_EVERY: Final = 10.0
"""Seconds between two lines of progress where there is no terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapesRequest:
    """What the user asked for."""

    count: int | None = None
    """Shapes; None: `COUNT`, or as many as there is time for."""
    seed: int | None = None
    """None: by chance."""
    qemu: str | None = None
    """None: the QEMU under test if it can, else `harness.shapes.builds.FALLBACK`."""
    seconds: float | None = None
    jobs: int = 1
    results: Path = Path("results")


@dataclass(slots=True)
class Outcome:
    """What came out of many shapes."""

    seed: int
    qemu: str
    directory: Path
    jobs: int = 1
    seconds: float = 0.0
    shapes: int = 0
    maps: int = 0
    refused: int = 0
    busy: float = 0.0
    """Seconds of making and judging, of all processes together."""
    floors: list[float] = field(default_factory=list)
    known: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, result: ChunkResult) -> None:
        """Join what came out of one chunk."""
        self.shapes += result.shapes
        self.maps += result.maps
        self.refused += result.refused
        self.busy += result.seconds
        self.floors.append(result.floor)
        self.known.update(result.known)
        self.failures += result.failures

    @property
    def rate(self) -> float:
        """Shapes per second and process."""
        return self.shapes / self.busy if self.busy else 0.0

    @property
    def floor(self) -> float:
        """Seconds to start and quit the same QEMU, the median."""
        return statistics.median(self.floors) if self.floors else 0.0

    def lines(self) -> list[str]:
        """Return the summary."""
        failed = sum(failure.count for failure in self.failures)
        lines = [
            f"{self.shapes} shapes, seed {self.seed}, {self.qemu} ({LABEL})",
            f"  agree     {self.shapes - failed - self.known.total()}, of them refused as they "
            f"must be {self.refused}; {self.maps} maps compared",
        ]
        lines += [f"  known     {count}: {page}" for page, count in sorted(self.known.items())]
        lines.append(f"  disagree  {failed}")
        for number, failure in enumerate(self.failures, 1):
            first = failure.problem.strip().splitlines() or [""]
            told = next((line for line in first if line.startswith("[")), first[0])
            lines.append(f"    {_file_name(number, failure)}: {failure.count} x {told}")
        if self.floor:
            each = 1 / self.rate if self.rate else 0.0
            lines.append(
                f"  speed     {self.rate:.1f} a second and process ({self.jobs}); a shape takes "
                f"{1000 * each:.0f} ms, to start and quit QEMU {1000 * self.floor:.0f} ms: "
                f"{each / self.floor:.2f} of that floor"
            )
        return [*lines, f"  results   {self.directory}"]

    def to_json(self) -> str:
        """Return the text of ``summary.json``."""
        return json.dumps(
            {
                "seed": self.seed,
                "qemu": self.qemu,
                "label": LABEL,
                "jobs": self.jobs,
                "seconds": round(self.seconds, 1),
                "shapes": self.shapes,
                "maps": self.maps,
                "refused": self.refused,
                "known": dict(self.known),
                "disagree": sum(failure.count for failure in self.failures),
                "shapes per second and process": round(self.rate, 2),
                "floor, seconds": round(self.floor, 4),
            },
            indent=1,
        ) + "\n"  # fmt: skip


def default_build(qemu: str | None) -> QemuBuild:
    """Return the build called *qemu*, or the one that shapes go into by default.

    :raise ConfigError: it has no ``vfio-user-pci``.
    """
    if qemu is not None:
        return build_with_vfio_user(qemu)
    settings = load_settings({}, os.environ, find_file(Path.cwd(), Path.cwd()))
    return first_with_vfio_user([settings.qemu])


def run_shapes(request: ShapesRequest, console: Console) -> Outcome:
    """Judge shapes, and write down what came out.

    :raise ConfigError: the build has no ``vfio-user-pci``.
    """
    build = default_build(request.qemu)
    keep_files_in_cache()
    seed = secrets.randbelow(1 << 32) if request.seed is None else request.seed
    count = request.count
    if count is None and request.seconds is None:
        count = COUNT
    directory = RunDirectory.create(request.results / "shapes", datetime.now())
    outcome = Outcome(seed, f"{build.label} {build.version}", directory.path, request.jobs)
    process.stop_like_ctrl_c()
    began = time.monotonic()
    progress = _Progress(console, count, began)
    try:
        with _judge(build, seed, request.jobs) as judge:
            for result in judge.results(Plan(count, request.seconds)):
                outcome.add(result)
                _write(outcome)
                progress.show(outcome)
    except KeyboardInterrupt:
        progress.stop()
        text = "\n".join(["interrupted; until then:", *outcome.lines()])
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        raise
    finally:
        progress.stop()
        outcome.seconds = time.monotonic() - began
        _write(outcome)
        directory.become_latest()
    return outcome


@contextlib.contextmanager
def _judge(build: QemuBuild, seed: int, jobs: int) -> Iterator[Judge]:
    if jobs == 1:
        yield Here(build, seed)
        return
    with Pool(build.label, seed, jobs) as pool:
        yield pool


def _file_name(number: int, failure: Failure) -> str:
    return f"{number:02}-{failure.rule}.json"


def _write(outcome: Outcome) -> None:
    (outcome.directory / "summary.json").write_text(outcome.to_json(), encoding="utf-8")
    (outcome.directory / "summary.txt").write_text("\n".join(outcome.lines()) + "\n")
    for number, failure in enumerate(outcome.failures, 1):
        place = outcome.directory / _file_name(number, failure)
        title = f"seed {outcome.seed}, chunk {failure.chunk}, {outcome.qemu}"
        file = ShapeFile(failure.shapes, title, failure.problem)
        place.write_text(file.to_json(), encoding="utf-8")
        place.with_suffix(".txt").write_text(failure.picture, encoding="utf-8")


def replay(paths: Sequence[Path], qemu: str | None) -> Iterator[tuple[str, bool]]:
    """Yield the picture of each file's shapes in QEMU, and whether all of them agree.

    :raise ConfigError: a file cannot be read, or the build has no ``vfio-user-pci``.
    """
    if not paths:
        raise ConfigError("no file of shapes to look at")
    files = [(path, read_shapes(path)) for path in paths]
    build = default_build(qemu)
    process.stop_like_ctrl_c()
    for path, file in files:
        seen = _together(build, file.shapes)
        head = f"{path}: {file.title}" if file.title else str(path)
        pictures = "\n".join(picture(one) for one in seen)
        text = f"{head}\nQEMU {build.label} {build.version} ({LABEL})\n\n{pictures}"
        yield text, all(one.agrees for one in seen)


def _together(build: QemuBuild, shapes: Sequence[Shape]) -> list[Observation]:
    """Judge *shapes* side by side, as many as fit into a machine."""
    seen: list[Observation] = []
    while len(seen) < len(shapes):
        left = shapes[len(seen) :]
        try:
            seen += observe_together(build, left[: how_many_fit(left, MOST)])
        except NoRoom as error:
            raise ConfigError(
                f"shape {len(seen) + 1} fits into no machine", seen=str(error)
            ) from error
    return seen


class _Progress:
    """Says how far it is: one line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, count: int | None, began: float) -> None:
        self._console, self._count, self._began = console, count, began
        self._last = began
        self._status = console.status("making shapes") if console.is_terminal else None
        if self._status is not None:
            self._status.start()

    def show(self, outcome: Outcome) -> None:
        """Show how far *outcome* is."""
        now = time.monotonic()
        of = f" of {self._count}" if self._count else ""
        failed = sum(failure.count for failure in outcome.failures)
        text = (
            f"{outcome.shapes}{of} shapes, {outcome.shapes / max(now - self._began, 0.1):.0f} a "
            f"second, {failed} disagree, {outcome.known.total()} known"
        )
        if self._status is not None:
            self._status.update(text)
        elif now - self._last >= _EVERY:
            self._last = now
            self._console.print(text, highlight=False)

    def stop(self) -> None:
        """Show nothing more."""
        if self._status is not None:
            self._status.stop()

"""``trapline matrix``: run the suites on each QEMU with each kernel, one after the other."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from harness.commands.places import Places
from harness.commands.run import resolve
from harness.errors import ConfigError, HarnessError
from harness.images.kernel_source import KernelSource
from harness.report.compare import letters
from harness.report.matrix import Cell, CellRun, Matrix
from harness.report.past_run import PastRun, read_run
from harness.settings import Settings, find_file, load_settings
from harness.spread.memory import NAME as DURATIONS

Tell = Callable[[str], None]
Run = Callable[[Sequence[str], Path, str], int]
"""Runs a command line, keeps what it prints beside its results, returns its exit status.

Given: arguments of ``trapline``; the directory of results; a short name for the lines."""

DONE: Final = "done.json"
"""In the directory of a cell's run: which run there counts, and of what."""
_NAMED: Final = ("debian:", "source:", "mutant:", "built:")
_MODULES: Final = ("", "*/", "lib/modules/*/", "usr/lib/modules/*/")


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRequest:
    """What the user asked for."""

    selection: tuple[str, ...] = ()
    qemus: tuple[str, ...] = ()
    """Empty: that of the settings."""
    kernels: tuple[str, ...] = ()
    guest_kernel: str | None = None
    keyword: str = ""
    full: bool = False
    times: int = 1
    workers: str | None = None
    results: Path | None = None
    """None: ``matrix`` in the usual place of results."""

    @property
    def base(self) -> Path:
        """Where the directories of the cells are."""
        return (self.results or Places.find().results / "matrix").absolute()

    def command(self) -> str:
        """Return the command line that goes on with this matrix."""
        words = ["trapline", "matrix", *self.selection]
        words += [f"--qemu={spec}" for spec in self.qemus]
        words += [f"--kernel={spec}" for spec in self.kernels]
        words += self.options()
        words += [f"--times={self.times}"] if self.times != 1 else []
        words += ["-n", self.workers] if self.workers is not None else []
        words += [f"--results={self.results}"] if self.results is not None else []
        return shlex.join(words)

    def options(self) -> list[str]:
        """Return the options that each run gets as they are."""
        given = {"--guest-kernel": self.guest_kernel, "-k": self.keyword or None}
        words = [word for name, value in given.items() if value for word in (name, value)]
        return [*words, *(["--full"] if self.full else [])]


@dataclass(frozen=True, slots=True)
class _Done:
    """What `DONE` holds."""

    run: str
    """Name of the directory of the run."""
    stamps: dict[str, str]
    """Files that the specs name, and what tells a rebuilt one from the one that was judged."""


def run_matrix(
    request: MatrixRequest, tell: Tell, run: Run, *, again: bool = False, only_show: bool = False
) -> Matrix:
    """Run every cell that is not done, and read back what all of them said.

    Ctrl-C ends the cell that runs; the matrix then is what was done so far.

    :param again: forget what is done.
    :param only_show: run nothing.
    :raise ConfigError: a spec or the selection names nothing, or a spec is there twice.
    """
    plan = list(planned(request))
    if again and not only_show:
        for one in plan:
            (one.directory / DONE).unlink(missing_ok=True)
    found = [_kept(one) for one in plan]
    is_interrupted, at = False, 0
    try:
        for at, one in enumerate(() if only_show else plan):
            where = f"[{at + 1}/{len(found)}] {one.name}"
            if found[at].is_kept:
                tell(f"{where}: done before, --again does it again")
                continue
            tell(f"{where}: QEMU {one.cell.qemu}, kernel {one.cell.kernel}")
            found[at] = _done(request, one, run, where.replace(" ", ""))
            tell(f"{where}: {_told(found[at])}")
    except KeyboardInterrupt:
        is_interrupted = True
        if found[at] == plan[at]:
            found[at] = replace(plan[at], problem="interrupted")
    order = list(dict.fromkeys(one.cell for one in found))
    return Matrix(tuple(sorted(found, key=lambda one: order.index(one.cell))), is_interrupted)


def planned(request: MatrixRequest) -> Iterator[CellRun]:
    """Yield the runs to do, in order: all cells once, then all once more, and so on.

    So an early end leaves every cell with as many runs as the others, and what drifts with time
    (heat, a full disk) is not taken for a property of the last cell.

    :raise ConfigError: a spec or the selection names nothing, or a spec is there twice.
    """
    places = Places.find()
    for word in request.selection:
        resolve(word, places)
    default = load_settings({}, os.environ, find_file(Path.cwd(), places.root))
    qemus = _checked(request.qemus or (default.qemu,), _check_qemu)
    kernels = _checked(request.kernels or (default.kernel,), KernelSource.parse)
    pairs = [(qemu, kernel) for qemu in qemus for kernel in kernels]
    cells = [
        Cell(name, qemu, kernel) for name, (qemu, kernel) in zip(letters(), pairs, strict=False)
    ]
    for number in range(1, request.times + 1):
        for cell in cells:
            place = request.base / _directory(request, cell, default) / str(number)
            name = f"{cell.name}{number}" if request.times > 1 else cell.name
            yield CellRun(cell, name, place)


def done_in(base: Path) -> tuple[Path, ...]:
    """Return the runs of a matrix that are done, cell by cell; empty if *base* has no matrix.

    :param base: directory of a matrix, of one of its cells, or of one run of a cell.
    """
    notes = sorted(note for depth in ("", "*/", "*/*/") for note in base.glob(f"{depth}{DONE}"))
    found = ((note.parent, _read_done(note.parent)) for note in notes)
    return tuple(place / done.run for place, done in found if done is not None)


def stamps(*specs: str) -> dict[str, str]:
    """Return the files that *specs* name, each with size and time of its last change.

    A build directory has its QEMU, a directory of modules the list of them.
    """
    files: set[Path] = set()
    for spec in specs:
        for word in () if spec.startswith(_NAMED) else spec.split(":"):
            path = Path(word).expanduser().absolute()
            files |= {path, *path.glob("qemu-system-*")}
            files |= {file for where in _MODULES for file in path.glob(f"{where}modules.dep")}
    known = {str(file): file.stat() for file in files if file.is_file()}
    return {name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in sorted(known.items())}


def _read_done(directory: Path) -> _Done | None:
    """Return which run in *directory* counts, None if none does or the note is damaged."""
    try:
        return _Done(**json.loads((directory / DONE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _checked(specs: Sequence[str], check: Callable[[str], object]) -> Sequence[str]:
    for spec in specs:
        check(spec)
        if specs.count(spec) > 1:
            raise ConfigError(f"{spec} is there twice", hint="--times 2 runs every cell twice")
    return specs


def _check_qemu(spec: str) -> None:
    if spec != "system" and not spec.startswith(_NAMED) and not Path(spec).expanduser().exists():
        raise ConfigError(
            f"there is no QEMU {spec}",
            hint="give a binary, a build directory, debian:SUITE or system",
        )


def _directory(request: MatrixRequest, cell: Cell, default: Settings) -> str:
    """Return the name for *cell*: readable, and another one for another question."""
    others = [word for word in default.options() if not word.startswith(("--qemu=", "--kernel="))]
    question = [cell.qemu, cell.kernel, *request.selection, *request.options(), *others]
    words = [re.sub(r"[^A-Za-z0-9._]+", "-", spec)[-40:] for spec in (cell.qemu, cell.kernel)]
    digest = hashlib.sha256(json.dumps(question).encode()).hexdigest()[:8]
    return f"{'+'.join(words)}-{digest}".strip("-.")


def _kept(one: CellRun) -> CellRun:
    """Return *one* with the run that was done before, if what it judged is still the same."""
    done = _read_done(one.directory)
    if done is None:
        return one
    try:
        run = read_run(one.directory / done.run)
    except ConfigError:
        return one
    if done.stamps != stamps(one.cell.qemu, one.cell.kernel) or not run.is_whole:
        return one
    return replace(one, run=run, problem="", is_kept=True)


def _done(request: MatrixRequest, one: CellRun, run: Run, label: str) -> CellRun:
    """Run *one*; what goes wrong is in the result, so that the next cell has its turn."""
    one.directory.mkdir(parents=True, exist_ok=True)
    before = set(one.directory.iterdir())
    known = stamps(one.cell.qemu, one.cell.kernel)
    _lend_durations(request.base, one.directory)
    try:
        status = run(_arguments(request, one), one.directory, label)
        past = _new_run(one.directory, before)
    except (OSError, HarnessError) as error:
        return replace(one, problem=str(error).partition("\n")[0])
    if past is None:
        return replace(one, problem=f"no run came about (exit status {status})")
    if past.is_whole:
        text = json.dumps(asdict(_Done(past.path.name, known)), indent=1)
        (one.directory / DONE).write_text(text + "\n", encoding="utf-8")
    return replace(one, run=past, problem=past.lacks)


def _lend_durations(base: Path, directory: Path) -> None:
    """Let a first run in *directory* be planned by what tests took in the last run elsewhere."""
    files = [*base.glob(f"*/*/{DURATIONS}"), Places.find().results / DURATIONS]
    known = [file for file in files if file.is_file()]
    if known and not (directory / DURATIONS).exists():
        shutil.copyfile(max(known, key=lambda file: file.stat().st_mtime), directory / DURATIONS)


def _arguments(request: MatrixRequest, one: CellRun) -> list[str]:
    return [
        "run",
        *request.selection,
        f"--qemu={one.cell.qemu}",
        f"--kernel={one.cell.kernel}",
        *request.options(),
        *(["-n", request.workers] if request.workers is not None else []),
        f"--results={one.directory}",
    ]


def _new_run(directory: Path, before: set[Path]) -> PastRun | None:
    fresh = [path for path in set(directory.iterdir()) - before if not path.is_symlink()]
    for path in sorted(fresh, reverse=True):
        if (path / "report.jsonl").is_file():
            return read_run(path)
    return None


def _told(one: CellRun) -> str:
    if one.run is None:
        return f"no results: {one.problem}"
    counts = ", ".join(f"{number} {verdict}" for verdict, number in one.counts.items())
    return f"{counts} ({one.run.seconds:.0f} s)" + (f"; {one.problem}" if one.problem else "")


def command_of(arguments: Sequence[str]) -> list[str]:
    """Return what starts ``trapline`` with *arguments* again, in this very environment."""
    return [sys.executable, "-P", "-m", "harness.cli", *arguments]

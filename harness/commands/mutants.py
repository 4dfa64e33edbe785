"""``trapline mutants``: break QEMU on purpose, and see which rule says so."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness import process
from harness.errors import HarnessError, ImageError
from harness.images.qemu_build import QemuBuild
from harness.images.qemu_mutant import MUTANT, SOURCE, Mutant, load_mutant, mutant_names
from harness.images.qemu_source import SourceRecipe
from harness.images.recipe import load_recipe
from harness.images.requirements import require_packages
from harness.images.workshop import Workshop
from harness.report.mutant_judge import Judgement, Notice, baseline_problem, judge
from harness.report.results import Result, read_results
from harness.report.rundir import latest

Tell = Callable[[str], None]
Run = Callable[[str, Sequence[str], Path], Sequence[Result]]
"""Runs a selection on a QEMU, keeps the evidence in a directory, returns the results."""


@dataclass(frozen=True, slots=True)
class MutantsRequest:
    """What the user asked for."""

    names: tuple[str, ...] = ()
    """Empty: all."""
    kernel: str | None = None
    results: Path = Path("results")
    """The evidence goes to ``mutants/`` there, a directory per mutant."""


@dataclass(frozen=True, slots=True)
class MutantsOutcome:
    """All mutants, judged."""

    qemu: str
    """The unbroken build."""
    judgements: tuple[Judgement, ...]
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What each mutant changes."""

    @property
    def is_fine(self) -> bool:
        """Say whether every mutant was noticed by the rules that must trip."""
        return all(one.is_fine for one in self.judgements)

    def lines(self) -> list[str]:
        """Return the table for people."""
        width = max((len(one.name) for one in self.judgements), default=0)
        lines = [f"mutants of {self.qemu}"]
        for one in self.judgements:
            lines.append(f"  {one.name:<{width}}  {one.line()}")
            if not one.is_fine and one.message:
                lines.append(f"  {'':<{width}}    {one.message}")
        noticed = sum(one.is_fine for one in self.judgements)
        lines.append(
            f"{len(self.judgements)} mutants, {noticed} noticed by the rules that must trip"
        )
        return lines

    def to_json(self) -> str:
        """Return everything as JSON."""
        mutants = [
            asdict(one) | {"files": self.files.get(one.name, ()), "is_fine": one.is_fine}
            for one in self.judgements
        ]
        return json.dumps({"qemu": self.qemu, "mutants": mutants}, indent=1)


def listing() -> list[str]:
    """Return what there is: names, files, rules, what each breaks."""
    lines = []
    for name in mutant_names():
        mutant = load_mutant(name)
        rules = ", ".join(mutant.recipe.rules)
        lines += [f"{name}  ({', '.join(mutant.files)}; {rules})", f"    {mutant.recipe.breaks}"]
    return lines


def run_mutants(
    request: MutantsRequest, workshop: Workshop, tell: Tell, run: Run | None = None
) -> MutantsOutcome:
    """Build the unbroken QEMU and each mutant, run on each what must notice it, and judge.

    :param run: runs tests; None: as ``trapline run`` does, in a process of its own.
    :raise ConfigError: there is no such mutant.
    :raise ImageError: not even the unbroken build can be made.
    :raise HarnessError: the unbroken build does not pass what the mutants are judged by.
    """
    require_packages()
    mutants = [load_mutant(name) for name in request.names or mutant_names()]
    run = run or _runner(request.kernel)
    place = request.results.absolute() / "mutants"
    base = f"{SOURCE}{load_recipe(SourceRecipe, 'qemu-source').tools.suite}"
    build = QemuBuild.resolve(base, workshop)
    label = f"{base} {build.version}"
    _check_baseline(base, mutants, run, place, tell)
    judgements = []
    for number, mutant in enumerate(mutants, start=1):
        tell(f"[{number}/{len(mutants)}] {mutant.name}: {mutant.recipe.breaks}")
        one = _judge(mutant, workshop, run, place)
        judgements.append(one)
        tell(f"[{number}/{len(mutants)}] {mutant.name}: {one.line()} ({one.seconds:.0f} s)")
    return MutantsOutcome(label, tuple(judgements), {one.name: one.files for one in mutants})


def _check_baseline(
    base: str, mutants: Iterable[Mutant], run: Run, place: Path, tell: Tell
) -> None:
    selection = tuple(dict.fromkeys(w for one in mutants for w in one.recipe.selection))
    tell(f"baseline: {base}, {len(selection)} selections")
    results = run(base, selection, place / "baseline")
    problem = baseline_problem(results)
    if problem:
        raise HarnessError(
            "the unbroken QEMU does not pass what the mutants are judged by",
            seen=problem,
            evidence=place / "baseline",
            hint="nothing can be said of the mutants before it does",
        )
    tell(f"baseline: {len(results)} tests, none failed")


def _judge(mutant: Mutant, workshop: Workshop, run: Run, place: Path) -> Judgement:
    began = time.monotonic()
    spec = f"{MUTANT}{mutant.name}"
    try:
        QemuBuild.resolve(spec, workshop)
        results = run(spec, mutant.recipe.selection, place / mutant.name)
    except (ImageError, HarnessError) as error:
        seconds = time.monotonic() - began
        return Judgement(mutant.name, Notice.ERROR, message=str(error), seconds=seconds)
    return judge(mutant.name, mutant.recipe.rules, results, time.monotonic() - began)


def _runner(kernel: str | None) -> Run:
    def run(qemu: str, selection: Sequence[str], results: Path) -> Sequence[Result]:
        results.mkdir(parents=True, exist_ok=True)
        # What a mutant boots is used once: saved, it would push out states that others use.
        argv = [
            sys.executable, "-P", "-m", "harness.cli", "run", *selection,
            f"--qemu={qemu}", f"--results={results}", "--no-saved-state",
        ]  # fmt: skip
        if kernel:
            argv.append(f"--kernel={kernel}")
        with (results / "output.txt").open("wb") as output:
            child = process.start(argv, stdout=output, stderr=output)
            try:
                status = child.wait()
            finally:
                process.kill(child)
        found = latest(results)
        if found is None or not found.report_log.is_file():
            raise HarnessError(
                f"no run of {qemu} came about", seen=f"exit status {status}",
                evidence=results / "output.txt",
            )  # fmt: skip
        return read_results(found.report_log)

    return run

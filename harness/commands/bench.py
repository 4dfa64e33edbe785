"""``trapline bench``: measure trapline beside its floors and its peers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from harness import paths
from harness.bench import computer, virtme
from harness.bench.catalogue import CATALOGUE, choose
from harness.bench.laboratory import Laboratory
from harness.bench.result import BenchmarkResult, NotMeasured, Report
from harness.bench.runner import Observer, Silent, measure
from harness.commands.places import Places
from harness.errors import ConfigError, HarnessError
from harness.guest.keys import make_key
from harness.images.images import Images
from harness.lab.parts import Parts
from harness.report.build_progress import build_progress
from harness.report.rundir import RunDirectory
from harness.settings import Settings, find_file, load_settings

PEERS = (virtme.NAME,)
ROUNDS = 5
REPORT = "bench.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """What the user asked for."""

    names: tuple[str, ...] = ()
    rounds: int = ROUNDS
    seconds: float | None = None
    """No round of a benchmark begins later than this; the first always does."""
    against: tuple[str, ...] = ()
    results: Path = field(default_factory=lambda: Places.find().results)
    """A directory per run goes below ``bench/`` in it."""
    options: Mapping[str, str | None] = field(default_factory=dict)
    """Of `Settings`, by field; None where not given."""


def settings_of(request: BenchRequest) -> Settings:
    """Return the settings of *request*."""
    return load_settings(request.options, os.environ, find_file(Path.cwd(), Places.find().root))


def check(request: BenchRequest) -> list[str]:
    """Return the names of the benchmarks, before anything is built or measured.

    :raise ConfigError: one of them, or a peer, is not known; no round is wanted.
    :raise MissingPackage: a peer was asked for that is not installed.
    """
    names = choose(request.names)
    if request.rounds < 1:
        raise ConfigError(f"{request.rounds} rounds measure nothing", hint="--rounds 5")
    for peer in request.against:
        if peer not in PEERS:
            raise ConfigError(f"no peer is called {peer!r}", hint=f"there is {', '.join(PEERS)}")
    if virtme.NAME in request.against:
        virtme.require_vng()
    return names


def bench(request: BenchRequest, observer: Observer | None = None) -> Report:
    """Measure what *request* asks for, one benchmark after the other.

    What cannot be measured here is in the report with the reason. Everything that was started
    has ended when this returns or raises.
    """
    names = check(request)
    before = computer.load()
    with build_progress() as progress:
        parts = Parts(settings_of(request), Images(progress=progress))
        parts.gather()
    now = datetime.now().astimezone()
    directory = RunDirectory.create(request.results / "bench", now).path
    private = paths.runtime_dir()
    try:
        lab = Laboratory(parts, make_key(private), directory, request.against)
        results = [_measure(name, lab, request, observer or Silent()) for name in names]
        facts = lab.facts()
    finally:
        paths.remove_runtime_dir(private)
    if virtme.NAME in request.against:
        facts[virtme.NAME] = virtme.version(virtme.require_vng())
    report = Report(
        when=now.isoformat(timespec="seconds"),
        computer=computer.describe(load_before=before),
        subjects=facts,
        benchmarks=tuple(results),
        directory=str(directory),
    )
    (directory / REPORT).write_text(report.to_json() + "\n", encoding="utf-8")
    return report


def _measure(
    name: str, lab: Laboratory, request: BenchRequest, observer: Observer
) -> BenchmarkResult:
    with ExitStack() as stack:
        try:
            benchmark = CATALOGUE[name].make(lab, stack)
        except HarnessError as error:
            return _not_measured(name, str(error))
        return measure(
            benchmark,
            rounds=request.rounds,
            seconds=request.seconds,
            evidence=lab.work,
            observer=observer,
        )


def _not_measured(name: str, why: str) -> BenchmarkResult:
    return BenchmarkResult(
        name=name, title=CATALOGUE[name].about, rounds=0, order=(), seconds=0,
        figures=(), comparisons=(), demands=(), notes=(),
        not_measured=(NotMeasured(subject="", why=why, is_failure=True),),
    )  # fmt: skip


def listing() -> list[str]:
    """Return the benchmarks, a line each."""
    return [f"{name:<10} {entry.about}" for name, entry in CATALOGUE.items()]

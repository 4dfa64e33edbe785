"""Results of benchmarks, for people and machines: the schema of ``trapline bench --json``."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import pydantic

SCHEMA: Literal["trapline-bench-1"] = "trapline-bench-1"
"""Raised when a field changes its meaning or goes; new ones may come."""


class _Result(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Mark(StrEnum):
    """How a demand fared."""

    MET = "met"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


class Figure(_Result):
    """Some measurements of one subject."""

    subject: str
    role: Literal["ours", "floor", "peer"]
    measure: str
    unit: str
    more_is_better: bool
    values: tuple[float, ...]
    """One a round, in the order of the rounds."""
    rounds: tuple[int, ...]
    """The number of the round of each value, from 0."""
    median: float
    mad: float
    quartiles: tuple[float, float]


class Comparison(_Result):
    """Two subjects measured in the same rounds: ``of / over``."""

    measure: str
    of: str
    over: str
    ratio: float
    """Median of the ratios of the rounds."""
    low: float
    high: float
    confidence: float
    """That the true median ratio is from *low* to *high*."""
    of_medians: float


class Demand(_Result):
    """What was asked, beside what was measured."""

    asked: str
    limit: float
    at_most: bool
    measured: float | None
    low: float | None = None
    high: float | None = None
    mark: Mark
    is_sure: bool
    """The whole interval (the quartiles, for a median) is on the same side of the limit."""
    why: str = ""
    """Why it was not measured."""


class NotMeasured(_Result):
    """A subject, or a whole benchmark (empty *subject*), without figures."""

    subject: str
    why: str
    """With the change that would enable it, if it is missing here."""
    is_failure: bool
    """It began and broke; else it cannot run here."""


class BenchmarkResult(_Result):
    """All of one benchmark."""

    name: str
    title: str
    rounds: int
    order: tuple[tuple[str, ...], ...]
    """Names of the subjects, in the order in which each round measured them."""
    seconds: float
    """How long it took to measure."""
    figures: tuple[Figure, ...]
    comparisons: tuple[Comparison, ...]
    demands: tuple[Demand, ...]
    not_measured: tuple[NotMeasured, ...]
    notes: tuple[str, ...]
    pictures: tuple[str, ...] = ()
    """Files that show it."""


class Computer(_Result):
    """Where it was measured."""

    cores: int
    memory: int
    """Bytes."""
    kernel: str
    processor: str
    load_before: float
    """Mean number of runnable tasks in the minute before; near 0 on a quiet computer."""
    load_after: float


class Report(_Result):
    """One run of ``trapline bench``."""

    schema_name: Literal["trapline-bench-1"] = pydantic.Field(default=SCHEMA, alias="schema")
    when: str
    """ISO 8601 with the zone."""
    computer: Computer
    subjects: dict[str, str]
    """QEMU, kernels, accelerator, peers: name to version."""
    benchmarks: tuple[BenchmarkResult, ...]
    directory: str
    """Evidence of every measurement, pictures, and this report as JSON."""

    @property
    def is_broken(self) -> bool:
        """Say whether something that began did not end well."""
        return any(one.is_failure for result in self.benchmarks for one in result.not_measured)

    def to_json(self) -> str:
        """Return it as JSON text."""
        return self.model_dump_json(indent=1, by_alias=True)

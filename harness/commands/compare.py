"""``trapline compare``: runs beside each other, read from their directories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.report.compare import Comparison, compare
from harness.report.past_run import read_run


def compare_runs(paths: Sequence[Path]) -> Comparison:
    """Read the runs in *paths* and compare them.

    :param paths: directories of runs, or of results, whose latest run then counts.
    :raise ConfigError: fewer than two, the same one twice, none in a directory, or no test in
        common.
    """
    runs = [read_run(path) for path in paths]
    if len(runs) < 2:
        raise ConfigError(
            "one run alone has nothing to be compared with",
            hint="name two or more: trapline compare results/RUN results/latest",
        )
    seen: dict[Path, Path] = {}
    for path, run in zip(paths, runs, strict=True):
        if run.path in seen:
            raise ConfigError(
                f"{seen[run.path]} and {path} are the same run",
                evidence=run.path,
                hint="a directory of results stands for its latest run; name the others",
            )
        seen[run.path] = path
    found = compare(runs)
    if not found.common:
        raise ConfigError(
            "no test is in all of the runs",
            seen="\n".join(
                f"{path}: {len(run.results)} tests" for path, run in zip(paths, runs, strict=True)
            ),
            hint="compare runs of the same selection",
        )
    return found

"""Benchmark ``kernels``: the cold boot of a virtual host, by the kernel that it has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from harness.bench.cold import FIRST, cold_boot
from harness.bench.laboratory import Laboratory
from harness.bench.model import Benchmark, Measure, Role, Sample, Subject
from harness.images.kernel_source import KernelSource
from harness.lab.parts import Parts
from harness.settings import Settings

BUILT: Final = "built:7.3"
"""Measured unless another one that is compiled here is chosen."""
DEFAULT: Final = Settings().kernel


def kernels(lab: Laboratory) -> Benchmark:
    """Return the benchmark; both kernels are there when it returns, compiled if need be."""
    chosen = lab.parts.settings.kernel
    built = chosen if KernelSource.parse(chosen).series else BUILT
    return Benchmark(
        name="kernels",
        title="cold boot of a virtual host, by its kernel, to the first result of a command",
        measures=(Measure(FIRST),),
        subjects=(_subject(lab, built, Role.OURS), _subject(lab, DEFAULT, Role.PEER)),
        notes=("the same QEMU, root and devices; only the kernel and its modules differ",),
    )


def _subject(lab: Laboratory, kernel: str, role: Role) -> Subject:
    chosen = lab.parts.settings.model_copy(update={"kernel": kernel})
    parts = Parts(chosen, lab.parts.images)
    parts.host_files()
    with_it = replace(lab, parts=parts)

    def run(place: Path) -> Sample:
        return {FIRST: cold_boot(with_it, place)}

    return Subject(kernel, role, run)

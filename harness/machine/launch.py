"""What is needed to start a QEMU: a build, a place, a directory for its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.machine.place import Place


class Runnable(Protocol):
    """A QEMU that can be started at some place (`harness.images.qemu_build.QemuBuild`)."""

    @property
    def argv_prefix(self) -> Sequence[str]:
        """The binary, with its loader and data directories."""

    @property
    def env(self) -> Mapping[str, str]:
        """Variables it needs."""

    @property
    def label(self) -> str:
        """For people and reports."""


@dataclass(slots=True)
class Launch:
    """What is needed besides the spec to start a machine."""

    place: Place
    qemu: Runnable
    evidence: Path
    """Directory for the evidence of this machine; exists."""
    level: str = "L1"
    """Level of the kernel that will talk on the console."""
    timeout: float = 60
    """Seconds until QMP must answer."""
    extra_env: Mapping[str, str] = field(default_factory=dict)
    stays: bool = False
    """Let QEMU go on when the connection to its place ends; see `Machine.leave`."""

"""Shapes without a QEMU: a bench that answers as the oracle, or some other way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from harness.model.expectation import Space, row_text
from harness.model.memory_map import Region
from harness.model.version import QemuVersion
from harness.model.vfio.expectation import expect_vfio
from harness.shapes import observe
from harness.shapes.areas import place_shapes
from harness.shapes.observe import refusal_of
from harness.shapes.programming import Programmer
from harness.shapes.served import case_of
from harness.shapes.shape import Shape

Change = Callable[[Region], Region | None]


@dataclass(frozen=True)
class Build:
    """A QEMU that is never started."""

    version: QemuVersion = QemuVersion(11, 1, 3)  # noqa: RUF009 - frozen
    label: str = "fake"
    argv_prefix: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)


class FakeBench:
    """Answers with the map that the oracle expects, after *change*."""

    change: Change = staticmethod(lambda row: row)
    made: ClassVar[list[int]] = []
    fails: Callable[[Sequence[Shape]], Exception | None] = staticmethod(lambda shapes: None)

    def __init__(self, qemu: Build, shapes: Sequence[Shape]) -> None:
        failure = type(self).fails(shapes)
        if failure is not None:
            raise failure
        self.qemu, self.shapes = qemu, tuple(shapes)
        self.made.append(len(self.shapes))
        self.names = tuple(f"s{i}" for i in range(len(self.shapes)))
        self.programmers = tuple(map(Programmer, self.shapes, place_shapes(self.shapes)))

    def do_step(self, step: int) -> None:
        for shape, programmer in zip(self.shapes, self.programmers, strict=True):
            for action in shape.all_steps[step] if step < len(shape.all_steps) else ():
                programmer.writes(action)

    def read_map(self) -> str:
        lines: list[str] = []
        for number, space in enumerate((Space.MEMORY, Space.PORTS)):
            lines += [
                f"FlatView #{number}",
                f' AS "{space}", root: r',
                f" Root memory region: r{number}",
            ]
            rows: list[Region] = []
            for name, shape, programmer in zip(
                self.names, self.shapes, self.programmers, strict=True
            ):
                if refusal_of(shape, self.qemu.version) is not None:
                    continue
                case = case_of(shape, qemu=self.qemu.version, name=name, programmer=programmer)
                rows += [row.region() for row in expect_vfio(case).rows_of(space)]
            changed = [type(self).change(row) for row in sorted(rows, key=lambda row: row.range)]
            shown = [f"  {row_text(row)}" for row in changed if row is not None]
            lines += [*(shown or ["  No rendered FlatView"]), ""]
        return "\n".join(lines)

    def stderr(self) -> str:
        return ""

    def quit(self) -> int:
        return 0

    def __enter__(self) -> FakeBench:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def build() -> Build:
    return Build()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> type[FakeBench]:
    """The bench that `harness.shapes.observe` uses from now on."""

    class Fresh(FakeBench):
        made: ClassVar[list[int]] = []

    monkeypatch.setattr(observe, "Bench", Fresh)
    return Fresh

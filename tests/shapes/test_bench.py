"""A bench whose QEMU is a script: it ends, hangs, or is not there."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.errors import LaunchFailed
from harness.model.pci import BarKind
from harness.shapes import bench as module
from harness.shapes.bench import Bench
from harness.shapes.shape import Place, Shape, ShapeBar

ONE = Shape((ShapeBar(0, BarKind.MEM32, 0x1000),))


@dataclass
class Script:
    argv_prefix: tuple[str, ...]
    label: str = "script"
    env: dict[str, str] = field(default_factory=dict)


def script(text: str) -> Script:
    return Script((sys.executable, "-c", text))


def test_a_qemu_that_refuses_says_why() -> None:
    refusing = script("import sys; sys.stderr.write('vfio: no'); sys.exit(1)")

    with pytest.raises(LaunchFailed, match="exited with 1 with these shapes") as failed:
        Bench(refusing, [ONE])

    assert (failed.value.exit_status, failed.value.stderr) == (1, "vfio: no")


def test_a_qemu_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    hanging = script("import signal; signal.pause()")

    with pytest.raises(
        LaunchFailed, match=r"did not answer within 0\.5 s and was ended"
    ) as failed:
        Bench(hanging, [ONE])

    assert failed.value.exit_status == -9


def test_a_qemu_that_is_not_there_has_no_status(tmp_path: Path) -> None:
    with pytest.raises(LaunchFailed, match="cannot be started") as failed:
        Bench(Script((str(tmp_path / "qemu"),)), [ONE])

    assert failed.value.exit_status is None


def test_nothing_stays_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    with pytest.raises(LaunchFailed):
        Bench(script("import sys; sys.exit(1)"), [ONE, ONE])

    assert list(tmp_path.iterdir()) == []


def test_each_shape_has_a_slot_and_a_socket_of_its_own() -> None:
    class Unstarted(Bench):
        def _launch(self, *_: object) -> None:
            self.words = " ".join(self.arguments([3, 4]))

        def _qtest_run(self, commands: object) -> None:
            self.written = commands

    shapes = [ONE, Shape(ONE.bars, place=Place.PORT), Shape(ONE.bars, place=Place.BRIDGE)]
    bench = Unstarted(script(""), shapes, options={0: {"rombar": 0}}, words=["-trace", "x"])
    with bench:
        assert [bench.place_of(i) for i in range(3)] == [(0, 2), (2, 0), (3, 1)]
        assert (
            '"driver": "pcie-root-port", "id": "b1", "bus": "pcie.0", "addr": "3"' in bench.words
        )
        assert '"path": "s2"}, "bus": "b2", "addr": "1"' in bench.words
        assert '"rombar": 0' in bench.words and bench.words.endswith("-trace x")
        assert "fd=3" in bench.words and "-accel qtest" in bench.words
        assert bench.written

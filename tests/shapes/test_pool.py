"""Chunks spread over processes that say what they are told to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError, MachineError
from harness.shapes.chunk_json import result_from_dict, result_to_dict
from harness.shapes.pool import Plan, Pool
from harness.shapes.run import CHUNK, ChunkResult, Failure
from harness.shapes.shape import Shape
from harness.shapes.worker import READY

RESULT = ChunkResult(
    3, 48, 90, 4, 1.5, 0.04, {"docs/x.md": 1}, (Failure((Shape(msi=1),), "MAP-01", "p", "pic", 3),)
)
WORKER = """
import json, sys
print("ready", flush=True)
for line in sys.stdin:
    number, size = map(int, line.split())
    print(json.dumps({"number": number, "shapes": size, "maps": 0, "refused": 0,
                      "seconds": 1.0, "floor": 0.1, "known": {}, "failures": []}), flush=True)
"""


def worker(tmp_path: Path, text: str) -> tuple[str, str]:
    place = tmp_path / "worker.py"
    place.write_text(text)
    return sys.executable, str(place)


def test_a_plan_ends_with_exactly_as_many_shapes_as_were_asked_for() -> None:
    plan = Plan(2 * CHUNK + 5, None)

    assert [plan.next() for _ in range(4)] == [(0, CHUNK), (1, CHUNK), (2, 5), None]


def test_a_plan_with_a_time_begins_at_least_once() -> None:
    plan = Plan(None, 0.0)

    assert [plan.next(), plan.next()] == [(0, CHUNK), None]


def test_a_result_survives_the_way_between_processes() -> None:
    assert result_from_dict(json.loads(json.dumps(result_to_dict(RESULT)))) == RESULT
    with pytest.raises(ValueError, match="not the result of a chunk"):
        result_from_dict({"failures": [], "number": 1})


def test_every_chunk_is_judged_once(tmp_path: Path) -> None:
    with Pool("qemu", 1, 2, worker=worker(tmp_path, WORKER)) as pool:
        found = list(pool.results(Plan(5 * CHUNK, None)))

    assert sorted(result.number for result in found) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "kind", "complaint"),
    [
        ("import sys; sys.exit(7)", MachineError, "its exit status is 7"),
        (f"import os, sys; os.close(0); print({READY!r}, flush=True); sys.exit(7)",
         MachineError, "its exit status is 7"),
        ('print(\'{"error": "no such build"}\')', HarnessError, "no such build"),
        ("print('hello')", MachineError, "says nonsense"),
    ],
)  # fmt: skip
def test_a_worker_that_cannot_go_on_is_told(
    tmp_path: Path, text: str, kind: type[HarnessError], complaint: str
) -> None:
    with (
        Pool("qemu", 1, 1, worker=worker(tmp_path, text)) as pool,
        pytest.raises(kind, match=complaint),
    ):
        list(pool.results(Plan(CHUNK, None)))

"""What came out of a chunk as JSON, to go from one process to another."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.shapes.run import ChunkResult, Failure
from harness.shapes.shape_json import shape_from_dict, shape_to_dict


def result_to_dict(result: ChunkResult) -> dict[str, Any]:
    """Return *result* as plain JSON values; `result_from_dict` reads it back equal."""
    plain = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.name != "failures"
    }
    return plain | {
        "failures": [
            {
                "shapes": [shape_to_dict(shape) for shape in failure.shapes],
                "rule": failure.rule,
                "problem": failure.problem,
                "picture": failure.picture,
                "chunk": failure.chunk,
                "count": failure.count,
            }
            for failure in result.failures
        ]
    }


def result_from_dict(values: dict[str, Any]) -> ChunkResult:
    """Read what `result_to_dict` wrote.

    :raise ValueError: it is something else.
    """
    try:
        failures = tuple(
            Failure(**one | {"shapes": tuple(map(shape_from_dict, one["shapes"]))})
            for one in values["failures"]
        )
        return ChunkResult(**values | {"failures": failures})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not the result of a chunk: {error}") from error

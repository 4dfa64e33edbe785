"""For all tests: how hypothesis judges, and runs that are over, made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Hypothesis judges what a test finds, never how long it took on a busy machine.
if settings.get_current_profile_name() == "default":  # with CI set, it has its own
    settings.register_profile("default", settings.get_profile("default"), deadline=None)
    settings.load_profile("default")

_OUTCOMES = {"pass": "passed", "fail": "failed", "error": "failed", "skip": "skipped"}


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Make the directory of a run as it is left: ``make_run("a", {"x.py::t": "fail: why"})``.

    Further keywords go to ``run.json``; with ``ended=False`` the run was killed.
    """

    def make(
        name: str | Path, tests: Mapping[str, str], *, ended: bool = True, **facts: Any
    ) -> Path:
        run = tmp_path / name
        run.mkdir(parents=True)
        lines = [json.dumps(_report(nodeid, said)) for nodeid, said in tests.items()]
        (run / "report.jsonl").write_text("".join(f"{line}\n" for line in lines))
        if ended:
            known = {"exit_status": 0, "collected": len(tests), **facts}
            (run / "run.json").write_text(json.dumps(known))
        return run

    return make


def _report(nodeid: str, said: str) -> dict[str, Any]:
    verdict, _, message = said.partition(": ")
    outcome = _OUTCOMES[verdict]
    wrapped = ["f", 1, message] if verdict == "skip" else {"reprcrash": {"message": message}}
    return {
        "$report_type": "TestReport",
        "nodeid": nodeid,
        "when": "call",
        "outcome": outcome,
        "verdict": verdict,
        "duration": 1.0,
        "longrepr": None if outcome == "passed" else wrapped,
        "user_properties": [["rules", "MAP-01"]],
    }

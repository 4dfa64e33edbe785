"""What covers the rules: a table, a list of negative controls, and JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table

from harness.model.rule import RuleState
from harness.report.compare import Comparison
from harness.report.coverage import Coverage

TOLD = 3
"""So many reasons are told of one rule; ``--json`` has all."""


def as_table(covered: Iterable[Coverage], found: Comparison) -> Table:
    """Return a table for a terminal.

    :param found: the runs that count; which of them gave a verdict is told if there are several.
    """
    several = len(found.runs) > 1
    names = ["rule", "state", "last", *(["run"] if several else []), "tests", "controls"]
    table = Table(*names, "statement", box=None)
    for one in covered:
        last = one.last_verdict or "-"
        runs = [" ".join(_names(one, found)) or "-"] if several else []
        numbers = [str(len(one.tests)), str(len(one.negative_controls))]
        table.add_row(one.rule.id, one.state, last, *runs, *numbers, one.rule.statement)
    return table


def reasons_lines(covered: Iterable[Coverage], found: Comparison) -> Iterator[str]:
    """Yield what would enable the rules that are not executed, or what went wrong with them.

    Rules with the same state and reasons come together.

    :param found: the runs that count; which of them said so is told if there are several.
    """
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for one in covered:
        where = " ".join(_names(one, found)) if len(found.runs) > 1 else ""
        state = f"{one.state} in {where}" if where else str(one.state)
        if one.reasons:
            alike.setdefault((state, one.reasons), []).append(one.rule.id)
    for (state, reasons), ids in alike.items():
        yield f"{' '.join(ids)} ({state})"
        yield from (f"  {reason}" for reason in reasons[:TOLD])
        if (more := len(reasons) - TOLD) > 0:
            yield f"  and {more} more reasons: trapline rules {ids[0]} --json has all"


def as_json(covered: Iterable[Coverage], found: Comparison, *, controls: bool = False) -> str:
    """Return a JSON list, one object per rule.

    :param found: the runs that count.
    :param controls: what each control said, too.
    """
    objects = [_object(one, found, controls=controls) for one in covered]
    return json.dumps(objects, indent=2, ensure_ascii=False)


def controls_lines(covered: Iterable[Coverage]) -> Iterator[str]:
    """Yield, for each rule with negative controls, these and what they said."""
    for one in covered:
        if one.controls:
            yield f"{one.rule.id} ({one.state}): {one.rule.statement}"
        for control in one.controls:
            yield f"  {control.verdict or 'not run'}: {control.nodeid}"
            yield from (f"    said: {text}" for text in control.said)


def elsewhere_lines(covered: Iterable[Coverage], found: Comparison) -> Iterator[str]:
    """Yield how to ask other runs, if controls are in none of those that count."""
    if any(control.verdict is None for one in covered for control in one.controls):
        where = "in none of the runs above" if found.runs else "there is no run yet"
        yield f"not run: {where}; another counts if you name it: trapline rules --run DIR"


def counts_line(covered: Sequence[Coverage]) -> str:
    """Return ``37 rules: 12 executed, 25 uncovered``."""
    counts = Counter(one.state for one in covered)
    parts = [f"{counts[state]} {state}" for state in RuleState if counts[state]]
    return f"{len(covered)} rules: {', '.join(parts) or 'none'}"


def _names(one: Coverage, found: Comparison) -> list[str]:
    return [found.names[number] for number in one.runs]


def _object(one: Coverage, found: Comparison, *, controls: bool) -> dict[str, object]:
    said = [
        {
            "test": control.nodeid,
            "verdict": None if control.verdict is None else str(control.verdict),
            "said": list(control.said),
        }
        for control in one.controls
    ]
    return {
        "id": one.rule.id,
        "statement": one.rule.statement,
        "source": one.rule.source,
        "applicability": one.rule.applies,
        "state": str(one.state),
        "tests": list(one.tests),
        "negative_controls": list(one.negative_controls),
        "last_verdict": None if one.last_verdict is None else str(one.last_verdict),
        "runs": [str(found.runs[number].path) for number in one.runs],
        "reasons": list(one.reasons),
        **({"controls": said} if controls else {}),
    }

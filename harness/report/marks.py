"""Which rules a test cites, read from its marks and checked against the catalogue."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import pytest

from harness.errors import ConfigError
from harness.model.rule import Rule

RULE = "rule"
CONTROL = "negative_control"
LABEL = "label"
FULL = "full"

DECLARATIONS = (
    f"{RULE}(*ids): this test checks these rules of the catalogue",
    f"{CONTROL}(*ids): this test shows that the check of these rules fails on a subject that "
    "breaks them",
    f"{LABEL}(text): what qualifies the result of this test wherever it is shown, for example "
    "'device modelled (vfio-user), QEMU real'",
    f"{FULL}: a run of everything by default leaves this test out; it runs with --full, or when "
    "its area, file or rule is named",
)


def cited(item: pytest.Item, mark: str, rules: Mapping[str, Rule]) -> tuple[str, ...]:
    """Return the rule ids of all marks named *mark*, in catalogue order, each once.

    :raise ConfigError: a mark has no ids, keyword arguments, or an id that is not there.
    """
    found: set[str] = set()
    for given in item.iter_markers(mark):
        if not given.args or given.kwargs:
            raise ConfigError(
                f"{item.nodeid}: a mark has wrong arguments",
                seen=f"@pytest.mark.{mark}{_written(given)}",
                hint=f'write @pytest.mark.{mark}("MAP-02", …)',
            )
        for name in given.args:
            if not isinstance(name, str) or name not in rules:
                raise ConfigError(
                    f"{item.nodeid}: {mark} mark cites an unknown rule {name!r}",
                    hint=f"nearest: {', '.join(nearest(str(name), rules))}",
                )
            found.add(name)
    return tuple(name for name in rules if name in found)


def note(item: pytest.Item, rules: Mapping[str, Rule]) -> tuple[str, ...]:
    """Keep what the test cites and requires in its properties; return all ids it cites.

    :raise ConfigError: as `cited`.
    """
    checked, controlled = cited(item, RULE, rules), cited(item, CONTROL, rules)
    values = {
        "rules": " ".join(checked),
        "negative_controls": " ".join(controlled),
        "requirement": requirement(item),
        LABEL: label(item),
    }
    item.user_properties += [(name, value) for name, value in values.items() if value]
    return checked + controlled


def label(item: pytest.Item) -> str:
    """Return what qualifies the result, the nearest mark first; empty if nothing does.

    :raise ConfigError: a mark has not one text.
    """
    texts = []
    for given in item.iter_markers(LABEL):
        if len(given.args) != 1 or given.kwargs or not isinstance(given.args[0], str):
            raise ConfigError(
                f"{item.nodeid}: a mark has wrong arguments",
                seen=f"@pytest.mark.{LABEL}{_written(given)}",
                hint=f'write @pytest.mark.{LABEL}("device modelled (vfio-user), QEMU real")',
            )
        texts.append(given.args[0])
    return "; ".join(dict.fromkeys(texts))


def nearest(name: str, rules: Iterable[str]) -> list[str]:
    """Return the ids most like *name*, best first, never none."""
    known = list(rules)
    wanted = name.upper().replace("_", "-").replace(" ", "")
    return difflib.get_close_matches(wanted, known, n=4, cutoff=0.0)


def requirement(item: pytest.Item) -> str:
    """Return the first line of the test's docstring, empty if it has none."""
    text = getattr(getattr(item, "function", None), "__doc__", None) or ""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _written(mark: pytest.Mark) -> str:
    keywords = [f"{key}={value!r}" for key, value in mark.kwargs.items()]
    return f"({', '.join([*map(repr, mark.args), *keywords])})"

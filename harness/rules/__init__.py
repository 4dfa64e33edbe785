"""The catalogue of rules, one TOML file per section; `README.md` explains the columns."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from types import MappingProxyType
from typing import Any

from harness.errors import ConfigError, ParseError
from harness.model.rule import Rule, RuleClass

_ID = re.compile(r"[A-Z]+-\d{2}")
_REQUIRED = frozenset({"id", "statement", "source", "applies", "kinds", "procedures", "check"})
_KEYS = _REQUIRED | {"group", "classification"}


@functools.cache
def load_rules() -> Mapping[str, Rule]:
    """Return every rule by id, in catalogue order."""
    rules: dict[str, Rule] = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".toml"):
            continue
        for rule in parse_section(file.read_text(encoding="utf-8"), where=file.name):
            if rule.id in rules:
                raise ParseError(f"{rule.id} is there twice", text=rule.statement, where=file.name)
            rules[rule.id] = rule
    return MappingProxyType(rules)


def parse_section(text: str, *, where: str) -> Iterator[Rule]:
    """Yield the rules of one file.

    :param where: file name, for messages.
    :raise ParseError: a key is missing, unknown, or has a wrong value.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParseError(str(error), text=text[:200], where=where) from error
    section = str(table.get("section", ""))
    for entry in table.get("rule", []):
        yield _rule(entry, section, where)


def select(prefix: str) -> tuple[Rule, ...]:
    """Return the rules of a series (``MAP``), a section (``C``), or the one with that id.

    :raise ConfigError: there are none.
    """
    wanted = prefix.upper()
    found = tuple(
        rule for rule in load_rules().values() if wanted in (rule.id, rule.series, rule.section)
    )
    if not found:
        series = sorted({rule.series for rule in load_rules().values()})
        raise ConfigError(f"no rule or series {prefix!r}", hint=f"series: {' '.join(series)}")
    return found


def _rule(entry: Mapping[str, Any], section: str, where: str) -> Rule:
    name = str(entry.get("id", "a rule without id"))
    if not _ID.fullmatch(name):
        raise ParseError(f"{name}: not a rule id", text=str(dict(entry)), where=where)
    if unknown := set(entry) - _KEYS:
        raise ParseError(f"{name}: unknown keys {sorted(unknown)}", text=str(entry), where=where)
    try:
        return Rule(
            id=name,
            section=section,
            statement=entry["statement"],
            source=entry["source"],
            applies=entry["applies"],
            kinds=tuple(entry["kinds"]),
            procedures=tuple(entry["procedures"]),
            check=entry["check"],
            group=entry.get("group", ""),
            classification=RuleClass(entry.get("classification", RuleClass.SUITE)),
        )
    except (KeyError, ValueError) as error:
        raise ParseError(f"{name}: {error}", text=str(dict(entry)), where=where) from error

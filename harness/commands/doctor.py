"""``trapline doctor``: what this computer can run, and what would let it run the rest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from harness import paths
from harness.commands.places import Places
from harness.commands.rules import Citations, collect
from harness.errors import ConfigError
from harness.host.virtual_spec import TEST_DEVICES
from harness.images.manifest import write_json
from harness.lab.doctor import look
from harness.model.machine_facts import MachineFacts, RuleFacts
from harness.model.rule import Rule, RuleState, state_of
from harness.rules import load_rules
from harness.settings import Settings, find_file, load_settings

LAB = frozenset({"virtual_host", "nested_host", "lab_parts"})
DEVICES = frozenset({"resident", "device_names"})
"""Fixtures that tell what a test needs; those that build on them bring them along."""


def examine(*, deep: bool = False) -> MachineFacts:
    """Return what is known of this computer and of the rules.

    :param deep: boot a kernel under KVM to decide about it, if that was not done before.
    """
    places = Places.find()
    settings = load_settings(
        dict.fromkeys(Settings.model_fields), os.environ, find_file(Path.cwd(), places.root)
    )
    facts = look(settings, deep=deep)
    try:
        return replace(facts, rules=rule_facts(places))
    except ConfigError as error:
        why = f"{error.summary}\n{error.seen}".strip()
        return replace(facts, rules_unknown=why)


def rule_facts(places: Places) -> tuple[RuleFacts, ...]:
    """Return every rule with what its tests need; remembered until suites or rules change."""
    kept = paths.cache_dir() / "doctor" / f"{_fingerprint(places)}.json"
    rules = load_rules()
    try:
        return tuple(_loaded(rules, one) for one in json.loads(kept.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    citations = collect(places)
    found = tuple(fact_of(rule, citations) for rule in rules.values())
    kept.parent.mkdir(parents=True, exist_ok=True)
    for old in kept.parent.glob("*.json"):
        old.unlink(missing_ok=True)
    write_json(kept, [[f.id, f.state, f.needs, f.only] for f in found])
    return found


def fact_of(rule: Rule, citations: Citations) -> RuleFacts:
    """Return what the tests of *rule* need: of the least demanding one, where they differ."""
    tests = citations.tests.get(rule.id, ())
    suite = [test for test in tests if citations.is_suite[test]]
    state = state_of(rule, tests, (), {}, is_suite=citations.is_suite)
    needs = [needs_of(citations.fixtures.get(test, ())) for test in suite]
    devices = [citations.device.get(test, "") for test in suite]
    return RuleFacts(
        rule.id,
        rule.section,
        state,
        min(needs, key=len, default=()),
        tuple(sorted(set(devices))) if devices and all(devices) else (),
    )


def needs_of(fixtures: Iterable[str]) -> tuple[str, ...]:
    """Return what a test with these fixtures needs from a host."""
    asked = set(fixtures)
    return tuple(word for word, marks in (("lab", LAB), ("devices", DEVICES)) if asked & marks)


def _loaded(rules: Mapping[str, Rule], kept: list[object]) -> RuleFacts:
    name, state, needs, only = kept
    rule = rules[str(name)]
    assert isinstance(needs, list) and isinstance(only, list)
    return RuleFacts(rule.id, rule.section, RuleState(str(state)), tuple(needs), tuple(only))


def _fingerprint(places: Places) -> str:
    """Return a hash of what decides which test cites which rule."""
    digest = hashlib.sha256(" ".join(TEST_DEVICES).encode())
    here = places.root / "harness"
    trees = [places.suites, *([places.tests] if places.tests else [])]
    files = [*(path for tree in trees for path in tree.rglob("*.py")), *here.glob("suite_*.py")]
    judges = (here / "commands/doctor.py", here / "model/rule.py")
    for path in sorted([*files, *(here / "rules").glob("*.toml"), *judges]):
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:20]

"""The catalogue as data: complete, unique, well formed."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.errors import ConfigError, ParseError
from harness.rules import load_rules, parse_section, select

COUNTS = {
    "A": {"MT": 30},
    "B": {"NM": 12},
    "C": {"MAP": 42},
    "D": {"QRK": 12},
    "E": {"INT": 19},
    "F": {"TRP": 21},
    "G": {"VTD": 64},
    "H": {"VIO": 21},
    "I": {"LIF": 34, "IFD": 10},
    "J": {"RST": 16},
    "K": {"MIG": 9},
    "L": {"SRV": 33},
    "M": {"QAT": 24},
    "N": {"NST": 24, "EDU": 10, "KUT": 3, "LST": 7},
    "O": {"UIO": 8},
    "P": {"AP": 27},
    "Q": {"ENV": 17},
    "R": {"PEER": 10},
    "S": {"ISO": 17},
}

GOOD = """
section = "C"
[[rule]]
id = "MAP-01"
statement = "s"
source = "x"
applies = "all"
kinds = ["S"]
procedures = []
check = "S"
"""


def test_there_are_as_many_rules_as_are_counted_here() -> None:
    assert len(load_rules()) == sum(sum(series.values()) for series in COUNTS.values())


def test_every_section_has_the_rules_it_had_when_it_was_written() -> None:
    found: dict[str, Counter[str]] = {}
    for rule in load_rules().values():
        found.setdefault(rule.section, Counter())[rule.series] += 1

    assert found == COUNTS


def test_the_numbers_of_a_series_have_no_gaps() -> None:
    series = {name: count for section in COUNTS.values() for name, count in section.items()}
    expected = {f"{name}-{number:02}" for name, n in series.items() for number in range(1, n + 1)}

    assert set(load_rules()) == expected


def test_every_rule_says_what_and_why() -> None:
    incomplete = [
        rule.id
        for rule in load_rules().values()
        if not (rule.statement and rule.source and rule.applies and rule.check)
    ]

    assert incomplete == []


def test_kinds_and_procedures_are_known_words() -> None:
    rules = load_rules().values()

    assert {kind for rule in rules for kind in rule.kinds} == {"S", "B", "N", "H"}
    assert {name for rule in rules for name in rule.procedures} <= {
        "P-SNAP", "P-MSG", "P-TRAP", "P-TRC", "P-GUEST",
    }  # fmt: skip


def test_text_is_kept_as_it_was_written() -> None:
    rule = load_rules()["MAP-02"]

    assert rule.statement == (
        "The MSI-X vector table range is i/o `msix-table` on top of anything else."
    )
    assert rule.kinds == ("S", "B")
    assert rule.check == "S; B: N exits, `memory_region_ops_read` name `msix-table`"
    assert load_rules()["EDU-01"].group == "edu programming facts"
    assert load_rules()["MT-01"].source.endswith("[V]")


def test_rules_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        load_rules()["MAP-01"] = load_rules()["MAP-02"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("given", "first", "count"),
    [("MAP", "MAP-01", 42), ("i", "LIF-01", 44), ("MT-03", "MT-03", 1)],
)
def test_rules_are_selected_by_series_section_or_id(given: str, first: str, count: int) -> None:
    found = select(given)

    assert found[0].id == first
    assert len(found) == count


def test_selecting_an_unknown_series_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="MAP MIG MT"):
        select("ZZZ")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('id = "MAP-01"', 'id = "map 1"', "not a rule id"),
        ('source = "x"', "", "source"),
        ('check = "S"', 'check = "S"\ncolour = "red"', "colour"),
        ('check = "S"', 'check = "S"\nclassification = "odd"', "odd"),
        ('section = "C"', "section = C", "x.toml"),
    ],
)
def test_a_damaged_section_is_refused(old: str, new: str, complaint: str) -> None:
    with pytest.raises(ParseError, match=complaint):
        list(parse_section(GOOD.replace(old, new), where="x.toml"))


def test_an_intact_section_is_read() -> None:
    assert [rule.id for rule in parse_section(GOOD, where="x.toml")] == ["MAP-01"]

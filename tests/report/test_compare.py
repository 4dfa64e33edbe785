"""Runs beside each other."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from harness.model.rule import Verdict
from harness.report.compare import Comparison, compare
from harness.report.past_run import PastRun
from harness.report.results import Result

Said = dict[str, tuple[Verdict, str]]
PASS, FAIL, SKIP = Verdict.PASS, Verdict.FAIL, Verdict.SKIP

verdicts = st.dictionaries(
    st.sampled_from([f"a.py::t{n}" for n in range(6)]),
    st.tuples(st.sampled_from(Verdict), st.sampled_from(["", "one", "two"])),
)


def run(said: Said, *, lacks: str = "", **facts: object) -> PastRun:
    results = {name: Result(name, one, 1.0, message=text) for name, (one, text) in said.items()}
    return PastRun(Path("/r"), results, facts, lacks)


def compared(*said: Said) -> Comparison:
    return compare([run(one) for one in said])


def test_a_test_with_two_verdicts_differs() -> None:
    found = compared({"t": (PASS, ""), "u": (PASS, "")}, {"t": (PASS, ""), "u": (FAIL, "x")})

    assert [row.nodeid for row in found.differ] == ["u"]
    assert found.differ[0].verdicts == (PASS, FAIL)
    assert (found.common, found.is_identical()) == (2, False)


def test_a_problem_comes_before_what_is_only_skipped() -> None:
    found = compared({"t": (PASS, ""), "u": (PASS, "")}, {"t": (SKIP, "x"), "u": (FAIL, "x")})

    assert [row.nodeid for row in found.differ] == ["u", "t"]


def test_a_test_that_a_run_has_not_is_no_difference_unless_it_shall_be() -> None:
    found = compared({"t": (PASS, "")}, {"t": (PASS, ""), "u": (FAIL, "x")}, {"t": (PASS, "")})

    assert [row.nodeid for row in found.absent] == ["u"]
    assert found.absent_by_runs() == {("B",): 1}
    assert found.is_identical()
    assert not found.is_identical(strict=True)


def test_skips_for_unlike_reasons_are_no_difference() -> None:
    found = compared(
        {"t": (SKIP, "no igb"), "u": (SKIP, "x")}, {"t": (SKIP, "y"), "u": (SKIP, "x")}
    )

    assert [row.nodeid for row in found.reasons] == ["t"]
    assert found.is_identical()


def test_a_run_that_is_not_whole_is_not_identical_to_any() -> None:
    part = run({"t": (PASS, "")}, lacks="interrupted")

    found = compare([part, run({"t": (PASS, "")})])

    assert found.partial == (("A", part),)
    assert not found.is_identical()


def test_what_was_said_is_told_once_with_all_who_said_it() -> None:
    found = compared(
        {"t": (FAIL, "x\nmore")}, {"t": (PASS, "z")}, {"t": (FAIL, "x")}, {"t": (SKIP, "")}
    )

    assert found.differ[0].messages() == {"x": (0, 2), "(nothing)": (3,)}


def test_facts_in_which_the_subjects_differ_are_named() -> None:
    here = run({}, subject={"QEMU": "10", "host": "virtual"})
    there = run({}, subject={"QEMU": "11", "host": "virtual", "lab": "10"})

    assert compare([here, there]).subject() == {"QEMU": ("10", "11"), "lab": ("-", "10")}


def test_there_are_names_for_any_number_of_runs() -> None:
    names = compare([run({})] * 30).names

    assert names[:2] + names[25:28] == ("A", "B", "Z", "AA", "AB")
    assert len(set(names)) == 30


@given(verdicts)
def test_a_run_is_identical_to_itself(said: Said) -> None:
    found = compared(said, said)

    assert found.is_identical(strict=True)
    assert not found.reasons
    assert found.common == len(said)


@given(st.lists(verdicts, min_size=2, max_size=4))
def test_every_test_is_in_one_place_and_order_changes_no_verdict(runs: list[Said]) -> None:
    found, back = compared(*runs), compared(*reversed(runs))

    names = {name for said in runs for name in said}
    everywhere = {name for name in names if all(name in said for said in runs)}
    assert {row.nodeid for row in found.absent} == names - everywhere
    assert found.common == len(everywhere)
    assert {row.nodeid for row in found.differ} == {
        name for name in everywhere if len({said[name][0] for said in runs}) > 1
    }
    assert {r.nodeid: r.verdicts for r in found.differ} == {
        r.nodeid: r.verdicts[::-1] for r in back.differ
    }
    assert found.is_identical(strict=True) == back.is_identical(strict=True)
    assert sum(found.absent_by_runs().values()) == len(found.absent)

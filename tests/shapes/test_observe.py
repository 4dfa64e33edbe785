"""Shapes judged against a bench that answers as the oracle does, or does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.errors import LaunchFailed
from harness.model.address import AddressRange
from harness.model.memory_map import Kind
from harness.model.pci import BarKind
from harness.shapes.known import ABSENT_BAR
from harness.shapes.mutants import Mutant, mutants
from harness.shapes.observe import judge_again, observe, observe_all, refusal_of
from harness.shapes.picture import picture
from harness.shapes.shape import Decode, Put, Shape, ShapeBar, ShapeMsix

PLAIN = Shape((ShapeBar(0, BarKind.MEM64, 0x8000), ShapeBar(2, BarKind.IO, 0x20, direct=False)))
WITH_TABLE = replace(PLAIN, msix=ShapeMsix(17, 0, 0x2000, 0, 0x3000))
REFUSED = replace(PLAIN, msix=ShapeMsix(17, 0, 0x2000, 0, 0x8000))
ABSENT = replace(PLAIN, msix=ShapeMsix(17, 4, 0x2000, 0, 0x3000))
OUTSIDE = "hardware reports invalid configuration, MSIX PBA outside of specified BAR"


def ended(status: int, said: str) -> LaunchFailed:
    return LaunchFailed("QEMU fake ended", exit_status=status, stderr=said)


def test_a_shape_that_is_mapped_as_the_oracle_says_agrees(build: Any, bench: Any) -> None:
    seen = observe(build, WITH_TABLE)

    assert seen.agrees and not seen.problem
    assert [view.step for view in seen.views] == [0]
    assert "agrees" in picture(seen)


def test_a_row_of_another_kind_does_not(build: Any, bench: Any) -> None:
    bench.change = staticmethod(lambda row: replace(row, kind=Kind.IO, word=None))

    seen = observe(build, WITH_TABLE)

    assert not seen.agrees
    assert seen.rule == "MAP-06"
    assert "after step 1 of 1" in seen.problem
    text = picture(seen)
    assert "does not agree [MAP-06]" in text
    assert "expected after step 1:" in text and "found:" in text


def test_each_step_is_compared(build: Any, bench: Any) -> None:
    steps = ((Put(0, 0), Decode(True, True)), (Put(0, 0x8000),), (Decode(False, False),))

    seen = observe(build, replace(PLAIN, steps=steps))

    assert seen.agrees
    assert [len(view.expectation.windows) for view in seen.views] == [1, 1, 0]


@pytest.mark.parametrize(
    ("shape", "failure", "rule", "known"),
    [
        (REFUSED, ended(1, f"vfio: {OUTSIDE}"), "", ""),
        (REFUSED, ended(1, "vfio: no"), "refused", ""),
        (REFUSED, ended(-11, ""), "died", ""),
        (REFUSED, None, "taken", ""),
        (PLAIN, ended(1, "vfio: no"), "refused", ""),
        (ABSENT, ended(-11, ""), "died", ABSENT_BAR),
    ],
)
def test_a_refusal_must_come_as_the_oracle_says(
    build: Any, bench: Any, shape: Shape, failure: LaunchFailed | None, rule: str, known: str
) -> None:
    bench.fails = staticmethod(lambda shapes: failure)

    seen = observe(build, shape)

    assert (seen.rule, seen.known) == (rule, known)
    assert seen.agrees == (not rule or bool(known))


def test_a_qemu_that_cannot_be_started_is_no_verdict(build: Any, bench: Any) -> None:
    bench.fails = staticmethod(
        lambda shapes: LaunchFailed("no QEMU", exit_status=None, stderr="not found")
    )

    with pytest.raises(LaunchFailed):
        observe(build, PLAIN)


def test_legal_shapes_share_a_machine_and_others_are_alone(build: Any, bench: Any) -> None:
    bench.fails = staticmethod(lambda shapes: ended(1, OUTSIDE) if REFUSED in shapes else None)

    seen = observe_all(build, [PLAIN, REFUSED, WITH_TABLE, PLAIN, WITH_TABLE], together=3)

    assert bench.made == [3, 1]
    assert all(one.agrees for one in seen)
    assert [one.refusal for one in seen] == [None, OUTSIDE, None, None, None]


def test_who_spoils_a_machine_is_found_and_the_others_are_well(build: Any, bench: Any) -> None:
    bad = replace(PLAIN, msi=32)
    bench.fails = staticmethod(lambda shapes: ended(-6, "abort") if bad in shapes else None)

    seen = observe_all(build, [PLAIN, bad, WITH_TABLE])

    assert [one.agrees for one in seen] == [True, False, True]
    assert seen[1].rule == "died"


def test_what_is_wrong_only_in_company_says_which(build: Any, bench: Any) -> None:
    bench.fails = staticmethod(lambda shapes: ended(-6, "abort") if len(shapes) > 1 else None)

    seen = observe_all(build, [PLAIN, WITH_TABLE])

    assert [one.agrees for one in seen] == [False, False]
    assert seen[0].beside == (PLAIN, WITH_TABLE)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (PLAIN, None),
        (REFUSED, OUTSIDE),
        (ABSENT, "table & pba overlap"),
        (replace(PLAIN, msix=ShapeMsix(17, 7, 0, 0, 0x1000)), "invalid MSI-X BIR, table_bar=7"),
        (
            Shape(
                (
                    ShapeBar(
                        1,
                        BarKind.MEM32,
                        0x4000,
                        direct=(AddressRange(0, 0x2000), AddressRange(0x1000, 0x1000)),
                    ),
                )
            ),
            "overlapping sparse mmap regions detected in region 1",
        ),
    ],
)
def test_the_oracle_knows_what_qemu_refuses(build: Any, shape: Shape, words: str | None) -> None:
    found = refusal_of(shape, build.version)

    assert found is None if words is None else words in (found or "")


def test_what_was_seen_can_be_judged_again(build: Any, bench: Any) -> None:
    seen = observe(build, WITH_TABLE)
    lost = next(mutant for mutant in mutants() if mutant.name == "rows of TABLE")

    assert judge_again(seen, build.version).agrees
    with lost.in_place():
        again = judge_again(seen, build.version)

    assert not again.agrees
    assert judge_again(seen, build.version).agrees


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_a_mutant_is_taken_back(build: Any, mutant: Mutant) -> None:
    holder, _, name = mutant.attribute.rpartition(".")
    target = getattr(mutant.module, holder) if holder else mutant.module
    before = target.__dict__[name]

    with mutant.in_place():
        assert target.__dict__[name] is not before

    assert target.__dict__[name] is before

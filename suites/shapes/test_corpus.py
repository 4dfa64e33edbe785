"""Shapes that were kept: small ones that show a rule, and ones that disagreed once.

To add one, copy the file that ``trapline shapes`` saved to ``corpus/`` and give it a title, and
the rules that it shows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.shapes.mutants import Mutant, mutants
from harness.shapes.observe import Build, Observation, judge_again, observe_together
from harness.shapes.shape_json import ShapeFile, read_shapes
from harness.testing import must_fail

CORPUS = {
    path.stem: read_shapes(path) for path in sorted((Path(__file__).parent / "corpus").glob("*"))
}
Seen = Callable[[str], list[Observation]]


@pytest.fixture(scope="session")
def corpus_seen(shape_build: Build) -> Seen:
    """Put the shapes of a file into QEMU, once for all tests."""
    kept: dict[str, list[Observation]] = {}

    def seen(name: str) -> list[Observation]:
        if name not in kept:
            kept[name] = observe_together(shape_build, CORPUS[name].shapes)
        return kept[name]

    return seen


def check_agreement(observations: list[Observation]) -> None:
    """QEMU made of each shape what the oracle says, after each step, or refused it so."""
    wrong = [one.problem for one in observations if not one.agrees]
    assert not wrong, "\n".join(wrong)


def files() -> list[object]:
    """Return the files of the corpus, each with the rules it shows."""
    return [
        pytest.param(name, marks=[pytest.mark.rule(*file.rules)] if file.rules else [], id=name)
        for name, file in CORPUS.items()
    ]


def lost_rules() -> list[object]:
    """Return each rule that the oracle can lose."""
    return [
        pytest.param(
            mutant,
            marks=pytest.mark.negative_control(mutant.rule),
            id=mutant.name.replace(" ", "-"),
        )
        for mutant in mutants()
    ]


@pytest.mark.parametrize("name", files())
@pytest.mark.usefixtures("shape_qemu")
def test_shape_is_mapped_as_the_oracle_says(corpus_seen: Seen, name: str) -> None:
    """QEMU maps a device as it follows from its description, or refuses it."""
    check_agreement(corpus_seen(name))


@pytest.mark.parametrize("mutant", lost_rules())
def test_an_oracle_that_lost_a_rule_is_noticed(
    corpus_seen: Seen, shape_qemu: Build, mutant: Mutant
) -> None:
    """Without one of its rules the oracle disagrees with QEMU on some shape of the corpus."""
    shows = [name for name, file in CORPUS.items() if mutant.rule in file.rules]
    alone = [one for name in shows for one in corpus_seen(name) if len(corpus_seen(name)) == 1]

    with must_fail(), mutant.in_place():
        check_agreement([judge_again(one, shape_qemu.version) for one in alone])


def test_the_corpus_shows_every_rule_that_the_oracle_can_lose() -> None:
    """Each rule has a file of its own in the corpus."""
    shown = {rule for file in CORPUS.values() for rule in file.rules}

    assert {mutant.rule for mutant in mutants()} <= shown


def title(file: ShapeFile) -> str:
    """Return what a file of the corpus is about."""
    return file.title


def test_every_file_of_the_corpus_says_what_it_is_about() -> None:
    """A reader of the report can tell a shape by its title."""
    assert all(title(file) for file in CORPUS.values())

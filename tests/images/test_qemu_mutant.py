"""Mutants: their files, and those that are in the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.images import qemu_mutant
from harness.images.qemu_mutant import load_mutant, mutant_names, mutants_dir, obtain_built
from harness.images.workshop import Workshop
from harness.rules import select

DESCRIPTION = 'breaks = "nothing works"\nrules = ["MAP-02"]\nselection = ["vfio_pci"]\n'
PATCH = "--- a/hw/vfio/pci.c\n+++ b/hw/vfio/pci.c\n@@ -1 +1 @@\n-good\n+bad\n"
PLACES = ("hw/vfio/", "hw/i386/intel_iommu.c", "hw/pci/", "system/memory.c")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(qemu_mutant, "mutants_dir", lambda: tmp_path)
    return tmp_path


def write(place: Path, description: str = DESCRIPTION, patch: str = PATCH) -> None:
    (place / "it.toml").write_text(description)
    (place / "it.patch").write_text(patch)


def test_a_mutant_is_a_description_and_a_patch(place: Path) -> None:
    write(place)

    mutant = load_mutant("it")

    assert (mutant_names(), mutant.files) == (["it"], ("hw/vfio/pci.c",))
    assert (mutant.recipe.rules, mutant.patch) == (("MAP-02",), PATCH)


@pytest.mark.parametrize("name", ["other", "../it", ""])
def test_an_unknown_mutant_is_refused_with_those_there_are(place: Path, name: str) -> None:
    write(place)

    with pytest.raises(ConfigError, match="there are: it"):
        load_mutant(name)


@pytest.mark.parametrize(
    ("description", "patch"),
    [
        (DESCRIPTION.replace("MAP-02", "map"), PATCH),
        (DESCRIPTION.replace('["MAP-02"]', "[]"), PATCH),
        (DESCRIPTION.replace('["vfio_pci"]', "[]"), PATCH),
        (DESCRIPTION + "more = 1\n", PATCH),
        ("breaks =", PATCH),
        (DESCRIPTION, "nothing\n"),
    ],
    ids=["no rule", "no rules", "no selection", "unknown field", "no TOML", "no file"],
)
def test_a_mutant_that_cannot_be_is_refused(place: Path, description: str, patch: str) -> None:
    write(place, description, patch)

    with pytest.raises(ConfigError, match="mutant it"):
        load_mutant("it")


def test_a_mutant_without_its_patch_is_refused(place: Path) -> None:
    write(place)
    (place / "it.patch").unlink()

    with pytest.raises(ConfigError, match=r"it\.patch"):
        load_mutant("it")


def test_only_the_suite_of_the_recipe_is_built_from_source() -> None:
    with pytest.raises(ConfigError, match="source:trixie is"):
        obtain_built("source:sid", Workshop())


@pytest.mark.parametrize("name", mutant_names())
def test_each_mutant_in_the_tree_names_rules_and_tests_that_there_are(name: str) -> None:
    mutant = load_mutant(name)

    assert all(select(rule) for rule in mutant.recipe.rules)
    for word in mutant.recipe.selection:
        file, _, test = word.partition("::")
        path = Path(__file__).parents[2] / "suites" / file
        assert path.exists(), word
        function = re.escape(test.partition("[")[0])
        assert not test or re.search(rf"^def {function}\(", path.read_text(), re.M), word


def test_the_mutants_break_qemu_where_assignment_is_done() -> None:
    touched = {file for name in mutant_names() for file in load_mutant(name).files}

    assert len(mutant_names()) >= 10
    assert all(any(file.startswith(place) for file in touched) for place in PLACES), touched


def test_every_patch_has_a_description() -> None:
    assert sorted(path.stem for path in mutants_dir().glob("*.patch")) == mutant_names()

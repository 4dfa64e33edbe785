"""Mutants: QEMU broken on purpose, to see whether the suites notice.

::

    images/mutants/<name>.toml    what it breaks, the rules that must trip, what to run
    images/mutants/<name>.patch   unified diff against the source as Debian builds it

A patch must apply without fuzz: one that was written for another version is refused, not guessed.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pydantic

from harness import paths
from harness.errors import ConfigError
from harness.images.qemu_pack import PackedQemu
from harness.images.qemu_source import obtain_variant
from harness.images.recipe import Recipe
from harness.images.workshop import Workshop

MUTANT = "mutant:"
"""Begins the name of a mutant where a QEMU build is named (``--qemu mutant:NAME``)."""
SOURCE = "source:"
"""Begins the name of a suite whose source is built here as it is (``--qemu source:trixie``)."""

_RULE = re.compile(r"[A-Z]{2,}-\d{2}")
_FILE = re.compile(r"^\+\+\+ b/(\S+)", re.MULTILINE)


class MutantRecipe(Recipe):
    """``<name>.toml``."""

    breaks: str
    """What is wrong with it, one sentence."""
    rules: tuple[str, ...] = pydantic.Field(min_length=1)
    """Rules that must trip: of each at least one test has to fail."""
    selection: tuple[str, ...] = pydantic.Field(min_length=1)
    """What to run, as for ``trapline run``: as little as shows it."""

    @pydantic.field_validator("rules")
    @classmethod
    def _are_rules(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [rule for rule in rules if not _RULE.fullmatch(rule)]
        if wrong:
            raise ValueError(f"not the id of a rule: {', '.join(wrong)}")
        return rules


class Mutant(Recipe):
    """A mutant with its patch."""

    name: str
    recipe: MutantRecipe
    patch: str

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files of QEMU that it changes."""
        return tuple(_FILE.findall(self.patch))


def mutants_dir() -> Path:
    """Return where the mutants are."""
    return paths.recipes_dir() / "mutants"


def mutant_names() -> list[str]:
    """Return the names of all mutants."""
    return sorted(path.stem for path in mutants_dir().glob("*.toml"))


def load_mutant(name: str) -> Mutant:
    """Read the mutant *name*.

    :raise ConfigError: there is none, or its files are not what they must be.
    """
    path = mutants_dir() / f"{name}.toml"
    if not re.fullmatch(r"[a-z0-9-]+", name) or not path.is_file():
        raise ConfigError(
            f"there is no mutant {name!r}", hint=f"there are: {', '.join(mutant_names())}"
        )
    patch = path.with_suffix(".patch")
    try:
        recipe = MutantRecipe.model_validate(tomllib.loads(path.read_text()))
        text = patch.read_text()
    except (OSError, tomllib.TOMLDecodeError, pydantic.ValidationError) as error:
        raise ConfigError(
            f"mutant {name} cannot be used", seen=str(error), evidence=path
        ) from error
    mutant = Mutant(name=name, recipe=recipe, patch=text)
    if not mutant.files:
        raise ConfigError(
            f"the patch of mutant {name} changes no file",
            evidence=patch,
            hint="git diff makes one: --- a/FILE, +++ b/FILE",
        )
    return mutant


def obtain_built(spec: str, workshop: Workshop) -> PackedQemu:
    """Return the QEMU that ``source:SUITE`` or ``mutant:NAME`` means, built if need be.

    :raise ConfigError: there is no such mutant, or the suite is not the recipe's.
    :raise ImageError: it cannot be built.
    """
    if spec.startswith(SOURCE):
        return obtain_variant(workshop, suite=spec.removeprefix(SOURCE))
    mutant = load_mutant(spec.removeprefix(MUTANT))
    return obtain_variant(workshop, mutant.patch, mutant.name)

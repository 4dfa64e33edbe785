"""``ap-host.toml``: what an AP host is made of."""

from __future__ import annotations

import pydantic

from harness.images.recipe import PackageSet, Recipe


class ProgramRecipe(Recipe):
    """A static C program of the AP host."""

    name: str
    sources: tuple[str, ...]
    """Glob patterns below the recipes."""


class LinkedFile(Recipe):
    """A file of the kernel that is linked into a module it does not belong to."""

    object: str
    source: str
    """From the root of the kernel's source."""


class Conditional(Recipe):
    """Modules that are built as well when their source asks for a line of the configuration."""

    directory: str
    modules: tuple[str, ...]
    mentions: str
    """Text in a file of the directory that makes it so."""
    needs: tuple[str, ...] = ()
    """Other directories they are compiled from."""
    config: dict[str, str]


class ModuleSet(Recipe):
    """Modules that are built together and used together."""

    name: str
    config: dict[str, str]
    """Lines in which the configuration differs from the distribution's: ``y`` or ``m``."""
    objects: dict[str, tuple[str, ...]]
    """Modules to build by the directory of the kernel's source they are in."""
    link: dict[str, LinkedFile] = pydantic.Field(default_factory=dict)
    """By directory."""


class ApHostRecipe(Recipe):
    """The whole recipe."""

    load: tuple[str, ...]
    """Modules a test may load, first to last; what they depend on comes along."""
    keep: tuple[str, ...]
    """Files to keep of the packages, from the root."""
    directories: tuple[str, ...]
    debian: PackageSet
    tools: PackageSet
    """What compiles for s390x on this machine."""
    programs: tuple[ProgramRecipe, ...]
    also: tuple[Conditional, ...] = ()
    sets: tuple[ModuleSet, ...]

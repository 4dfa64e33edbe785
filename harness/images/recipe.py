"""Recipes of images: ``images/*.toml`` read into frozen models."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

import pydantic

from harness import paths
from harness.errors import ConfigError
from harness.images.packages import MACHINE_ARCHITECTURE


class Recipe(pydantic.BaseModel):
    """Base of recipes: frozen, and no field that nobody knows."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class PackageSet(Recipe):
    """Packages of one Debian suite."""

    suite: str
    packages: tuple[str, ...]
    """With all they depend on."""
    alone: tuple[str, ...] = ()
    """Without what they depend on."""
    assume: tuple[str, ...] = ()
    """Taken as installed: what only maintainer scripts need."""
    architecture: str = MACHINE_ARCHITECTURE

    def as_text(self) -> str:
        """Return it for a key; a set for this machine has the text of a set that cannot say."""
        ours = self.architecture == MACHINE_ARCHITECTURE
        return self.model_dump_json(exclude={"architecture"} if ours else None)


class KernelRecipe(Recipe):
    """``kernel.toml``: a Debian kernel cut down to the modules that we use."""

    debian: PackageSet
    modules: tuple[str, ...]


class HostRecipe(Recipe):
    """``host.toml``: the root file system and the initrd of the virtual host."""

    debian: PackageSet
    drop: tuple[str, ...] = ()
    """Glob patterns, from the root, of what is left out."""
    directories: tuple[str, ...] = ()
    """Mount points and other empty directories."""
    initrd_modules: tuple[str, ...]


class GuestRecipe(Recipe):
    """``guest.toml``: the initramfs of the nested guest."""

    debian: PackageSet
    programs: tuple[str, ...]
    """Files to keep, from the root; libraries they need come along."""
    directories: tuple[str, ...] = ()
    modules: tuple[str, ...]


class ProbeRecipe(Recipe):
    """``probe.toml``: the C program that runs in hosts and guests."""

    sources: tuple[str, ...]
    """Glob patterns below the recipes."""
    program: str
    flags: tuple[str, ...]


class QemuRecipe(Recipe):
    """``qemu.toml``: QEMU builds of Debian, and how any build is packed."""

    debian: PackageSet
    firmware_debian: PackageSet
    """Firmware for a build without any."""
    program: str
    leave_out: tuple[str, ...]
    """Glob patterns of QEMU modules that are not packed."""
    firmware: tuple[str, ...]
    """Glob patterns of the firmware files that are packed."""
    essential: str
    """The firmware file by which a data directory is known."""


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def load_recipe(model: type[AnyRecipe], name: str) -> AnyRecipe:
    """Read the recipe *name* (``kernel``).

    :raise ConfigError: it is missing, not TOML, or has unknown or missing fields.
    """
    path = recipe_path(name)
    try:
        return model.model_validate(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError, pydantic.ValidationError) as error:
        raise ConfigError(
            f"the recipe of {name} cannot be used", seen=str(error), evidence=path
        ) from error


def recipe_path(name: str) -> Path:
    """Return where the recipe *name* is."""
    return paths.recipes_dir() / f"{name}.toml"

"""A kernel compiled from Debian's package of the source, in a configuration of ours.

The source is the distribution's, byte for byte. The configuration is the lines of
``images/built-kernel/x86_64.config``, every one of which must hold, and what they need. It is
compiled in a directory of compilers (`build_root`), whatever this machine has.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import paths
from harness.errors import ImageError
from harness.images.build_root import WORK
from harness.images.cache import Artifact, hash_file, remove_tree
from harness.images.debian import Package
from harness.images.kernel_source import read_release
from harness.images.linux_source import (
    CCACHE,
    OUT,
    LinuxSource,
    obtain_kernel_tools,
    source_package,
)
from harness.images.recipe import PackageSet, Recipe, load_recipe
from harness.images.workshop import Workshop
from harness.step import step

CONFIGURATION = "built-kernel/x86_64.config"
"""Below the recipes."""


class BuiltKernelRecipe(Recipe):
    """``built-kernel.toml``."""

    suite: str
    """Of the source."""
    leave_out: tuple[str, ...]
    """Patterns of files of the source that are not unpacked."""
    modules: tuple[str, ...]
    """Packed beside those of every kernel; see `ModuleTree.select`."""
    tools: PackageSet


@dataclass(frozen=True, slots=True)
class BuiltSource:
    """A compiled kernel in the store."""

    artifact: Artifact
    series: str
    recipe: BuiltKernelRecipe

    @property
    def modules(self) -> Path:
        """Return ``…/lib/modules/<release>`` with every module."""
        release = (self.artifact.dir / "release").read_text().strip()
        return self.artifact.dir / "lib/modules" / release


def obtain_built_source(workshop: Workshop, series: str) -> BuiltSource:
    """Return the kernel *series* (``7.3``), which the first time takes minutes.

    :raise ImageError: the mirror has no such source, a line of the configuration does not hold,
        or it does not compile.
    """
    recipe = load_recipe(BuiltKernelRecipe, "built-kernel")
    configuration = paths.recipes_dir() / CONFIGURATION

    def build(into: Path, packages: Sequence[Package]) -> None:
        compilers = obtain_kernel_tools(workshop, recipe.tools)
        source = LinuxSource(into, compilers, packages[0].version)
        source.unpack(packages, recipe.leave_out)
        with what_was_compiled_before(source.work / CCACHE):
            _configure(source, configuration)
            _compile(source)
        _keep(source)

    inputs = {
        "configuration": hash_file(configuration),
        "leave out": " ".join(recipe.leave_out),
        "tools": recipe.tools.as_text(),
    }
    wanted = source_package(recipe.suite, series)
    return BuiltSource(workshop.obtain("built-kernel", inputs, build, wanted), series, recipe)


def unmet(wanted: str, found: str) -> list[str]:
    """Return the lines of the fragment *wanted* that do not hold in the ``.config`` *found*.

    What a configuration does not name is not set.
    """
    have = _settings(found)
    return [
        f"{line}; there is {have.get(name, 'no such option')}"
        for name, line in _settings(wanted).items()
        if have.get(name, f"# {name} is not set") != line
    ]


def _configure(source: LinuxSource, configuration: Path) -> None:
    shutil.copyfile(configuration, source.work / "wanted.config")
    with step("configure Linux %s", source.version):
        source.make(
            ["allnoconfig"], "configure Linux", f"KCONFIG_ALLCONFIG={WORK / 'wanted.config'}"
        )
    missed = unmet(configuration.read_text(), (source.work / OUT / ".config").read_text())
    if missed:
        raise ImageError(
            f"Linux {source.version} has no such configuration",
            seen="\n".join(missed),
            hint=f"change these lines of images/{CONFIGURATION}",
        )


def _compile(source: LinuxSource) -> None:
    jobs = f"-j{(os.cpu_count() or 1) + 1}"
    with step("compile Linux %s (once; about 7 minutes on two free cores)", source.version):
        source.make([jobs, "bzImage"], "compile Linux")
    with step("compile the modules of Linux %s", source.version):
        source.make([jobs, "modules"], "compile the modules of Linux")
        source.make(
            [f"INSTALL_MOD_PATH={WORK / 'installed'}", "INSTALL_MOD_STRIP=1", "modules_install"],
            "gather the modules of Linux",
        )


def _keep(source: LinuxSource) -> None:
    into, out = source.into, source.work / OUT
    vmlinuz = into / "vmlinuz"
    shutil.copyfile(out / "arch/x86/boot/bzImage", vmlinuz)
    shutil.copyfile(out / ".config", into / "config")
    release = read_release(vmlinuz)
    (into / "release").write_text(release + "\n")
    modules = into / "lib/modules" / release
    modules.parent.mkdir(parents=True)
    (source.work / "installed/lib/modules" / release).rename(modules)
    for link in ("build", "source"):
        (modules / link).unlink(missing_ok=True)
    remove_tree(source.work)


@contextlib.contextmanager
def what_was_compiled_before(place: Path) -> Iterator[None]:
    """Have ccache's directory at *place* while inside, and back in our cache after.

    Whoever comes second while somebody has it begins without.
    """
    home = paths.cache_dir() / CCACHE
    try:
        home.rename(place)
    except FileNotFoundError:
        place.mkdir()
    try:
        yield
    finally:
        if home.exists():
            remove_tree(place)
        else:
            place.rename(home)


def _settings(config: str) -> dict[str, str]:
    lines = (re.match(r"(?:# )?(CONFIG_\w+)[= ]", line) for line in config.splitlines())
    return {match[1]: match.string.strip() for match in lines if match}

"""The tests that come with Linux, as static programs that any kernel may run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.images.build_root import WORK
from harness.images.built_kernel import BuiltKernelRecipe
from harness.images.cache import remove_tree
from harness.images.debian import Package
from harness.images.linux_source import (
    OUT,
    SOURCE,
    LinuxSource,
    obtain_kernel_tools,
    source_package,
)
from harness.images.recipe import Recipe, load_recipe
from harness.images.workshop import Workshop
from harness.step import step

PROGRAMS = "selftests"
"""Directory of the artifact."""


class TestPrograms(Recipe):
    """One directory of tests."""

    __test__ = False

    directory: str
    """Below ``tools/testing/selftests``."""
    programs: tuple[str, ...]
    scripts: tuple[str, ...] = ()
    """Files of it that are taken as they are."""


class KernelTestsRecipe(Recipe):
    """``kernel-tests.toml``."""

    series: str
    suite: str
    leave_out: tuple[str, ...]
    tests: tuple[TestPrograms, ...]


@dataclass(frozen=True, slots=True)
class KernelTests:
    """The programs in the store."""

    key: str
    root: Path
    """Has ``vfio/vfio_pci_device_test``, ``vfio/scripts/setup.sh``, ``iommu/iommufd``, …"""
    version: str
    """Of the source they come from."""


def obtain_kernel_tests(workshop: Workshop) -> KernelTests:
    """Return the tests; the first time takes a minute or two.

    :raise ImageError: the source cannot be had, or they do not compile.
    """
    recipe = load_recipe(KernelTestsRecipe, "kernel-tests")
    tools = load_recipe(BuiltKernelRecipe, "built-kernel").tools

    def build(into: Path, packages: Sequence[Package]) -> None:
        compilers = obtain_kernel_tools(workshop, tools)
        source = LinuxSource(into, compilers, packages[0].version)
        source.unpack(packages, recipe.leave_out)
        with step("compile the tests of Linux %s", source.version):
            source.make(["ARCH=x86", "headers"], "make the headers of Linux")
            for one in recipe.tests:
                _compile(source, one, into / PROGRAMS)
        (into / "version").write_text(source.version + "\n")
        remove_tree(source.work)

    inputs = {
        "recipe": recipe.model_dump_json(exclude={"series", "suite"}),
        "tools": tools.as_text(),
    }
    wanted = source_package(recipe.suite, recipe.series)
    artifact = workshop.obtain("kernel-tests", inputs, build, wanted)
    version = (artifact.dir / "version").read_text().strip()
    return KernelTests(artifact.key, artifact.dir / PROGRAMS, version)


def _compile(source: LinuxSource, one: TestPrograms, into: Path) -> None:
    output = Path("tests") / one.directory
    (source.work / output).mkdir(parents=True)
    place = Path(SOURCE, "tools/testing/selftests", one.directory)
    programs = [WORK / output / name for name in one.programs]
    source.run(
        [
            "make", f"-j{os.cpu_count() or 1}", "-C", WORK / place, f"OUTPUT={WORK / output}",
            f"top_srcdir={WORK / SOURCE}", "CC=gcc", "LDFLAGS=-static -pthread",
            f"KHDR_INCLUDES=-isystem {WORK / OUT / 'usr/include'}", *programs,
        ],
        f"compile the tests in {one.directory} of Linux",
    )  # fmt: skip
    source.run(["strip", *programs], "strip the tests of Linux")
    for name in one.programs:
        _keep(source.work / output / name, into / one.directory / name)
    for name in one.scripts:
        _keep(source.work / place / name, into / one.directory / name)


def _keep(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, target)
    target.chmod(0o755)

"""Compile the static C programs of the AP host."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from harness import paths
from harness.errors import ImageError
from harness.images.ap_recipe import ApHostRecipe, ProgramRecipe
from harness.images.build_root import WORK, BuildRoot, obtain_build_root
from harness.images.cache import hash_file
from harness.images.debian import Package
from harness.images.workshop import Workshop

FLAGS = ("-O2", "-static", "-pthread", "-std=gnu11", "-s")


def obtain_ap_programs(workshop: Workshop, recipe: ApHostRecipe) -> Path:
    """Return a directory with the programs, compiled for s390x.

    :raise ImageError: one does not compile; carries the compiler's words.
    """
    root = paths.recipes_dir()
    sources = {one: _sources(one, root) for one in recipe.programs}
    inputs = {
        f"{one.name}/{path.relative_to(root)}": hash_file(path)
        for one, found in sources.items()
        for path in found
    }
    inputs |= {"flags": " ".join(FLAGS), "tools": recipe.tools.as_text()}

    def build(into: Path, _: Sequence[Package]) -> None:
        tools = obtain_build_root(workshop, recipe.tools)
        work = into / "work"
        for one, found in sources.items():
            _compile(one, found, tools, work / one.name)
            shutil.copy(work / one.name / one.name, into / one.name)
        shutil.rmtree(work)

    return workshop.obtain("ap-programs", inputs, build).dir


def _sources(one: ProgramRecipe, root: Path) -> list[Path]:
    found = sorted(path for pattern in one.sources for path in root.glob(pattern))
    if not any(path.suffix == ".c" for path in found):
        raise ImageError(f"{one.name} has no sources", evidence=root / "ap-host.toml")
    return found


def _compile(one: ProgramRecipe, sources: Sequence[Path], tools: BuildRoot, work: Path) -> None:
    work.mkdir(parents=True)
    for path in sources:
        shutil.copyfile(path, work / path.name)
    files = [WORK / path.name for path in sources if path.suffix == ".c"]
    compiler = f"s390x-linux-gnu-gcc-{_gcc(tools)}"
    tools.run(
        [compiler, *FLAGS, "-o", WORK / one.name, *files],
        work,
        purpose=f"compile {one.name} for s390x",
    )


def _gcc(tools: BuildRoot) -> str:
    """Return the version of the compiler in the tree, as it is in its name."""
    found = sorted((tools.root / "usr/bin").glob("s390x-linux-gnu-gcc-[0-9]*"))
    if not found:
        raise ImageError("the tools have no compiler for s390x", evidence=tools.root)
    return found[-1].name.rpartition("-")[2]

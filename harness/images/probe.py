"""Build the C program that runs in hosts and guests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import paths
from harness.errors import ImageError
from harness.images.cache import hash_file
from harness.images.debian import Package
from harness.images.recipe import ProbeRecipe, load_recipe
from harness.images.tools import run_tool
from harness.images.workshop import Workshop


def obtain_probe(workshop: Workshop) -> Path:
    """Return the static program, compiled by this machine's gcc.

    :raise ImageError: it does not compile; carries the compiler's words.
    """
    recipe = load_recipe(ProbeRecipe, "probe")
    root = paths.recipes_dir()
    sources = sorted(path for pattern in recipe.sources for path in root.glob(pattern))
    if not any(path.suffix == ".c" for path in sources):
        raise ImageError("the probe has no sources", evidence=root / "probe.toml")
    inputs = {str(path.relative_to(root)): hash_file(path) for path in sources}
    inputs["recipe"] = recipe.model_dump_json()

    def build(into: Path, _: Sequence[Package]) -> None:
        c_files = [path for path in sources if path.suffix == ".c"]
        run_tool(
            ["gcc", *recipe.flags, "-s", "-o", into / recipe.program, *c_files],
            purpose="compile the probe",
        )

    return workshop.obtain("probe", inputs, build).dir / recipe.program

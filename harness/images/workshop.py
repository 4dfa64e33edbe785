"""From a recipe to an artifact: which packages, what key, build or take from the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.images.cache import Artifact, Store, key_of
from harness.images.debian import DebianSuite, Package, Progress
from harness.images.mirror import Mirror
from harness.images.recipe import PackageSet

BUILDER = "3"
"""Raised when a builder makes something else from the same inputs."""

Build = Callable[[Path, Sequence[Package]], None]


class Workshop:
    """What every builder needs: the store, the mirror, and somebody to tell of progress.

    :param refresh: ask the mirror for newer packages even if the recipe was built before.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        mirror: Mirror | None = None,
        progress: Progress | None = None,
        refresh: bool = False,
    ) -> None:
        self.store = store or Store()
        self._mirror = mirror
        self._progress = progress
        self._refresh = refresh

    def obtain(
        self, name: str, inputs: Mapping[str, str], build: Build, wanted: PackageSet | None = None
    ) -> Artifact:
        """Return the artifact made from *inputs* and the packages *wanted*.

        A recipe that was resolved before needs neither apt nor a network while its artifact
        is whole.

        :param inputs: everything beside the packages that decides the result: what, and a
            text or hash of it.
        :param build: fills an empty directory from the downloaded packages.
        """
        recipe = self.recipe_key(name, inputs, wanted)
        key = None if self._refresh and wanted else self.store.recall(recipe)
        found = self.store.find(name, key) if key else None
        if found is not None:
            return found
        suite = self.suite(wanted) if wanted else None
        chosen = suite.resolve(wanted.packages, alone=wanted.alone) if suite and wanted else []
        key = key_of(recipe, *(f"{one.name} {one.version} {one.sha256}" for one in chosen))

        def fill(into: Path) -> None:
            fetched = suite.fetch(wanted.packages, alone=wanted.alone) if suite and wanted else []
            build(into, fetched)

        artifact = self.store.obtain(
            key,
            fill,
            name,
            inputs=inputs,
            packages={one.name: one.version for one in chosen},
        )
        self.store.remember(recipe, key)
        return artifact

    def recipe_key(
        self, name: str, inputs: Mapping[str, str], wanted: PackageSet | None = None
    ) -> str:
        """Return the key of a recipe before its packages are resolved."""
        words = [f"{what}={value}" for what, value in sorted(inputs.items())]
        return key_of(BUILDER, name, wanted.model_dump_json() if wanted else "", *words)

    def suite(self, wanted: PackageSet) -> DebianSuite:
        """Return the suite that *wanted* names."""
        return DebianSuite(
            wanted.suite, self._mirror, assume=wanted.assume, progress=self._progress
        )

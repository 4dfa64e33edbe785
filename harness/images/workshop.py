"""From a recipe to an artifact: which packages, what key, build or take from the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.images.cache import Artifact, Store, key_of
from harness.images.debian import DebianSuite, Package, Progress
from harness.images.debian_source import DebianSources
from harness.images.mirror import Mirror
from harness.images.packages import MACHINE_ARCHITECTURE, Selected
from harness.images.recipe import PackageSet

BUILDER = "3"
"""Raised when a builder makes something else from the same inputs."""

Build = Callable[[Path, Sequence[Package]], None]

Wanted = PackageSet | Sequence[PackageSet] | Callable[[], Sequence[PackageSet]]
"""Packages of one suite and architecture, or of several.

A function is called when something has to be made, for sets that only the mirror can tell; the
inputs must cover what it goes by.
"""


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

    def refreshing(self) -> Workshop:
        """Return this workshop, asking the mirror for newer packages."""
        return Workshop(self.store, mirror=self._mirror, progress=self._progress, refresh=True)

    def obtain(
        self, name: str, inputs: Mapping[str, str], build: Build, wanted: Wanted | None = None
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
        sets = wanted() if callable(wanted) else package_sets(wanted)
        pairs = [(one, self.suite(one)) for one in sets]
        chosen = [c for one, suite in pairs for c in suite.resolve(one.packages, alone=one.alone)]
        key = key_of(recipe, *(f"{one.name} {one.version} {one.sha256}" for one in chosen))

        def fill(into: Path) -> None:
            fetched: list[Package] = []
            for one, suite in pairs:
                fetched += suite.fetch(one.packages, alone=one.alone)
            build(into, fetched)

        artifact = self.store.obtain(
            key,
            fill,
            name,
            inputs=inputs,
            packages={_name_of(one): one.version for one in chosen},
        )
        self.store.remember(recipe, key)
        return artifact

    def obtain_source(self, suite: str, package: str) -> Artifact:
        """Return the files that Debian builds *package* of *suite* from.

        :raise ImageError: the mirror has no such source, or cannot be reached.
        """
        recipe = key_of(BUILDER, "source", suite, package)
        key = None if self._refresh else self.store.recall(recipe)
        found = self.store.find("source", key) if key else None
        if found is not None:
            return found
        archive = DebianSources(suite, self._mirror, progress=self._progress)
        files = archive.resolve(package)
        key = key_of(recipe, *(f"{one.name} {one.sha256}" for one in files))
        artifact = self.store.obtain(
            key,
            lambda into: archive.fetch(package, files, into),
            "source",
            inputs={"suite": suite, "package": package},
        )
        self.store.remember(recipe, key)
        return artifact

    def recipe_key(
        self, name: str, inputs: Mapping[str, str], wanted: Wanted | None = None
    ) -> str:
        """Return the key of a recipe before its packages are resolved."""
        words = [f"{what}={value}" for what, value in sorted(inputs.items())]
        packages = "\n".join(one.as_text() for one in package_sets(wanted))
        return key_of(BUILDER, name, packages, *words)

    def suite(self, wanted: PackageSet) -> DebianSuite:
        """Return the suite that *wanted* names."""
        return DebianSuite(
            wanted.suite, self._mirror, assume=wanted.assume, progress=self._progress,
            architecture=wanted.architecture,
        )  # fmt: skip


def package_sets(wanted: Wanted | None) -> Sequence[PackageSet]:
    """Return what is wanted as a sequence, as far as it is known before the mirror is asked."""
    if wanted is None or callable(wanted):
        return ()
    return (wanted,) if isinstance(wanted, PackageSet) else tuple(wanted)


def _name_of(one: Selected) -> str:
    """Return a package's name; one of another machine's says whose it is."""
    ours = one.architecture in (MACHINE_ARCHITECTURE, "all")
    return one.name if ours else f"{one.name}:{one.architecture}"

"""Images as far as they are in the cache: nothing is fetched, nothing is built."""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import ImageError
from harness.images.cache import Artifact
from harness.images.workshop import Build, Wanted, Workshop


class Offline(Workshop):
    """A workshop that only finds what was made before."""

    def obtain(
        self, name: str, inputs: Mapping[str, str], build: Build, wanted: Wanted | None = None
    ) -> Artifact:
        """Return the artifact.

        :raise ImageError: it is not in the cache.
        """
        key = self.store.recall(self.recipe_key(name, inputs, wanted))
        found = self.store.find(name, key) if key else None
        if found is None:
            raise ImageError(
                f"{name} of this recipe is not in the cache", hint="trapline images build makes it"
            )
        return found

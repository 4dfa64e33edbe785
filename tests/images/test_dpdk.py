"""The recipe of DPDK's testpmd."""

from pathlib import Path

import pytest

from harness.errors import ImageError
from harness.images.dpdk import DpdkRecipe, _collect
from harness.images.recipe import load_recipe


def test_the_recipe_names_the_program_and_drivers_for_our_cards() -> None:
    """e1000 drives e1000e and igb."""
    recipe = load_recipe(DpdkRecipe, "dpdk")

    assert recipe.program.endswith("/dpdk-testpmd")
    assert {"e1000", "virtio", "mempool_ring"} <= {
        word for plugin in recipe.plugins for word in ("e1000", "virtio", "mempool_ring")
        if word in plugin
    }  # fmt: skip


def test_packages_without_the_program_are_refused(tmp_path: Path) -> None:
    """A newer Debian may have it elsewhere; the message says where to look."""
    with pytest.raises(ImageError, match=r"no package of DPDK has usr/bin/dpdk-testpmd"):
        _collect(tmp_path / "unpacked", tmp_path / "tree", load_recipe(DpdkRecipe, "dpdk"))

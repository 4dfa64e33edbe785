"""Mended QEMUs: their patches."""

from __future__ import annotations

import pytest

from harness.errors import ConfigError
from harness.images.qemu_mended import mended_names, obtain_mended, patch_of
from harness.images.workshop import Workshop


@pytest.mark.parametrize("name", ["other", "../svm-exitintinfo", ""])
def test_an_unknown_name_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match="there are: svm-exitintinfo"):
        obtain_mended(f"mended:{name}", Workshop())


def test_a_patch_says_what_it_mends_before_it_changes_files() -> None:
    for name in mended_names():
        said, _, changed = patch_of(name).partition("--- a/")
        assert "docs/findings/" in said
        assert "\n+++ b/" in changed

"""The list of packages that the machine must have."""

from pathlib import Path

import pytest

from harness.errors import MissingPackage
from harness.images.requirements import missing_packages, require_packages, required_packages
from harness.images.tools import PACKAGE_OF


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("harness.paths.recipes_dir", lambda: tmp_path)
    return tmp_path / "packages.txt"


def test_the_list_agrees_with_the_programs_that_are_run() -> None:
    named = dict(required_packages())

    assert {"mkfs.erofs", "cpio", "depmod", "gcc"} <= named.keys()
    assert all(PACKAGE_OF.get(program, package) == package for program, package in named.items())


def test_missing_programs_and_files_give_their_packages_once(listed: Path) -> None:
    listed.write_text(
        "# remark\nsh dash\nnosuch-a pkg-a # remark\n/nonexistent/x.h pkg-b\nnosuch-b pkg-a\n"
    )

    assert missing_packages() == ["pkg-a", "pkg-b"]


def test_all_missing_packages_are_named_in_one_error(listed: Path) -> None:
    listed.write_text("nosuch-a pkg-a\nnosuch-b pkg-b\n")

    with pytest.raises(MissingPackage, match=r"apt-get install .* pkg-a pkg-b"):
        require_packages()


def test_programs_of_sbin_are_found_whatever_the_path(
    listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed.write_text("depmod kmod\n")
    monkeypatch.setenv("PATH", "/nonexistent")

    assert missing_packages() == []

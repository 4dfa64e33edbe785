"""``trapline test``: what pytest is asked to do, and what is refused before."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness
from harness.commands import selftest
from harness.errors import ConfigError


def test_tests_are_spread_over_the_cores() -> None:
    arguments = selftest.pytest_arguments(["-k", "bar"], fast=False, workers=2)

    assert arguments == ["--numprocesses=2", "--dist=worksteal", "-k", "bar"]


@pytest.mark.parametrize("word", ["-n0", "--numprocesses=3", "--pdb", "-s"])
def test_the_user_may_say_how_tests_are_spread(word: str) -> None:
    assert selftest.pytest_arguments([word], fast=False, workers=2) == [word]


def test_one_core_runs_tests_in_one_process() -> None:
    assert selftest.pytest_arguments([], fast=False, workers=1) == []


def test_fast_leaves_out_tests_that_exist() -> None:
    root = selftest.checkout()

    arguments = selftest.pytest_arguments([], fast=True, workers=1)

    assert arguments == [f"--ignore={path}" for path in selftest.SLOW]
    assert all((root / path).exists() for path in selftest.SLOW)


def test_installed_package_sends_to_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "__file__", str(tmp_path / "harness/__init__.py"))

    with pytest.raises(ConfigError, match="not part of an installed") as caught:
        selftest.checkout()

    assert "./trapline test" in caught.value.hint


def test_missing_development_package_is_named_with_the_line_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(selftest.DEV_MODULES, "no_such_module", "no-such-thing")

    with pytest.raises(ConfigError, match="not installed: no-such-thing") as caught:
        selftest.require_dev_packages(Path("/a path"))

    assert "pip install --editable '/a path[dev]'" in caught.value.hint


def test_dev_packages_are_those_of_the_extra() -> None:
    selftest.require_dev_packages(selftest.checkout())

    declared = (selftest.checkout() / "pyproject.toml").read_text()
    assert all(f'"{name}>=' in declared for name in selftest.DEV_MODULES.values())

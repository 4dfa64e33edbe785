"""``trapline test``: run the project's own tests, linters and types included.

They live in the checkout (``tests/``) and need the packages of the ``dev`` extra; an installed
wheel has neither.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import harness
from harness.errors import ConfigError, ImageError, MissingPackage

DEV_MODULES = {
    "build": "build",
    "codespell_lib": "codespell",
    "hatchling": "hatchling",
    "hypothesis": "hypothesis",
    "importlinter": "import-linter",
    "mypy": "mypy",
    "ruff": "ruff",
    "syrupy": "syrupy",
}
"""Module to import: distribution that brings it. All are in the ``dev`` extra."""

SLOW = ("tests/quality/test_types.py", "tests/packaging", "tests/failures")
"""What ``--fast`` leaves out."""

_OWN_PROCESSES = ("-n", "--numprocesses", "--dist", "--pdb", "--trace", "-s", "--capture=no")
_MOST_WORKERS = 4


def run(arguments: Sequence[str] = (), *, fast: bool = False) -> int:
    """Run the tests of the checkout this module is in; paths are relative to the checkout.

    :param arguments: passed to pytest.
    :param fast: leave out the type check and the packaging tests.
    :return: the exit status of pytest.
    :raise ConfigError: no checkout, or a development package is missing.
    """
    root = checkout()
    require_dev_packages(root)
    if not fast:
        _make_images()
    with contextlib.chdir(root):
        return int(pytest.main(pytest_arguments(arguments, fast=fast, workers=_workers())))


def _make_images() -> None:
    """Have the images that tests of real failures start; without a mirror those tests skip."""
    from harness.images.images import Images
    from harness.lab.parts import Parts
    from harness.report.build_progress import build_progress
    from harness.settings import Settings

    try:
        with build_progress() as progress:
            Parts(Settings(), Images(progress=progress)).gather()
    except (ImageError, MissingPackage) as error:
        print(f"trapline: tests that start real machines will skip: {error}", file=sys.stderr)


def checkout() -> Path:
    """Return the directory of the checkout that `harness` was imported from.

    :raise ConfigError: it was imported from an installed package.
    """
    root = Path(harness.__file__).resolve().parent.parent
    if not ((root / "tests").is_dir() and (root / "pyproject.toml").is_file()):
        raise ConfigError(
            "the project's own tests are not part of an installed trapline",
            seen=f"no tests beside {root}",
            hint="clone the repository and run ./trapline test there",
        )
    return root


def require_dev_packages(root: Path) -> None:
    """Check that all that the tests import is installed.

    :raise ConfigError: something is not; the hint is the line that installs it.
    """
    missing = [
        distribution
        for module, distribution in DEV_MODULES.items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise ConfigError(
            f"trapline test needs packages that are not installed: {', '.join(missing)}",
            hint=f"pip install --editable '{root}[dev]', or start it as {root / 'trapline'} test",
        )


def pytest_arguments(arguments: Sequence[str], *, fast: bool, workers: int) -> list[str]:
    """Return the command line for pytest (pure).

    Tests are spread over *workers* processes unless *arguments* say how, or need the terminal.
    Work stealing, because a few tests (mypy, the wheel) take as long as all others.
    """
    given = list(arguments)
    if workers > 1 and not any(word.startswith(_OWN_PROCESSES) for word in given):
        given = [f"--numprocesses={workers}", "--dist=worksteal", *given]
    if fast:
        given = [*(f"--ignore={path}" for path in SLOW), *given]
    return given


def _workers() -> int:
    return min(len(os.sched_getaffinity(0)), _MOST_WORKERS)

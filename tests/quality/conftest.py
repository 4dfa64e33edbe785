"""What the quality checks look at: every file that is, or is about to be, in the repository."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = {"__pycache__", "dist", "build", "results"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take longest, so that other workers can do the rest."""
    order = {"test_types.py": 0, "test_wheel.py": 1, "test_linters.py": 2}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """All files of the project, found without git: an unpacked sdist has none."""
    return sorted(_walk(ROOT))


@pytest.fixture(scope="session")
def tool() -> Callable[[Sequence[str]], str]:
    """Run a Python tool in the checkout; what it complains about, empty when content."""

    def run(arguments: Sequence[str]) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return "" if done.returncode == 0 else f"{' '.join(arguments)}:\n{done.stdout}"

    return run


def _walk(directory: Path) -> list[Path]:
    found = []
    for entry in directory.iterdir():
        if entry.name in LEFT_OUT or entry.is_symlink():
            continue
        if entry.is_dir():
            # .ci is ours; other hidden directories belong to tools.
            if not entry.name.startswith(".") or entry.name == ".ci":
                found += _walk(entry)
        elif not entry.name.endswith((".pyc", ".swp", "~")):
            found.append(entry)
    return found

"""Layers: the contracts in ``[tool.importlinter]`` of pyproject.toml hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LINT = (
    "import sys; from importlinter.cli import lint_imports as lint; sys.exit(lint(no_cache=True))"
)


def test_imports_go_one_way(root: Path) -> None:
    status, said = lint(root)

    assert status == 0, said


def test_an_import_against_the_layers_is_found(root: Path, tmp_path: Path) -> None:
    for package in ("harness", "suites"):
        for source in (root / package).rglob("*.py"):
            copy = tmp_path / source.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((root / "pyproject.toml").read_bytes())
    (tmp_path / "harness/model/wrong.py").write_text("import socket\nimport harness.cli\n")

    status, said = lint(tmp_path)

    assert status == 1, said
    assert "harness.model.wrong -> harness.cli" in said
    assert "harness.model.wrong -> socket" in said


def lint(directory: Path) -> tuple[int, str]:
    """Return exit status and output of import-linter, run where it finds *directory* first."""
    done = subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout

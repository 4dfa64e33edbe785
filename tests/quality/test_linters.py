"""Linters: format, lint, spelling, shell."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

PYTHON = ("harness", "suites", "tests")
# SC1007: "a= b=" on one line is how the shell is told to clear both.
SHELLCHECK = ("shellcheck", "--severity=warning", "--exclude=SC1007")
# dash and the shell of busybox know "local"; what sh alone means is nobody's shell.
DIALECTS = {"sh": "dash", "bash": "bash"}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("ruff", "check", "--quiet", *PYTHON), id="ruff-check"),
        pytest.param(("ruff", "format", "--diff", "--quiet", *PYTHON), id="ruff-format"),
        pytest.param(("codespell_lib",), id="codespell"),
    ],
)
def test_linter_is_content(
    arguments: tuple[str, ...], tool: Callable[[Sequence[str]], str]
) -> None:
    complaint = tool(arguments)

    assert not complaint, complaint


def test_shell_scripts_are_correct(root: Path, files: list[Path]) -> None:
    """By ``sh -n`` or ``bash -n`` always; by shellcheck where it is installed."""
    scripts = [path for path in files if shell_of(path)]
    assert root / "trapline" in scripts

    complaints = []
    for path in scripts:
        checks = [[shell_of(path), "-n", str(path)]]
        if shutil.which("shellcheck"):
            checks.append([*SHELLCHECK, f"--shell={DIALECTS[shell_of(path)]}", str(path)])
        for check in checks:
            done = subprocess.run(check, capture_output=True, text=True, check=False)
            complaints += [done.stdout + done.stderr] if done.returncode else []

    assert not complaints, "\n".join(complaints)


def shell_of(path: Path) -> str:
    """Return the shell that runs *path*, empty if it is not a shell script."""
    with path.open("rb") as stream:
        first = stream.readline(80)
    words = first.removeprefix(b"#!").split() if first.startswith(b"#!") else []
    name = words[-1].rpartition(b"/")[2].decode(errors="replace") if words else ""
    return {"sh": "sh", "ash": "sh", "dash": "sh", "bash": "bash"}.get(name, "")

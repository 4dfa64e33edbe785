"""What is built from the checkout, and that it works where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUBBISH = {".hypothesis", "__pycache__", "results", "dist", "build", ".git"}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Return the output of *command*; all of it when it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}"
    return done.stdout


def build(kind: str, target: Path) -> Path:
    """Build the *kind* (``wheel`` or ``sdist``) of a clean copy, without network."""
    source = target / "source"
    shutil.copytree(ROOT, source, ignore=lambda _, names: {n for n in names if is_rubbish(n)})
    run(
        *(sys.executable, "-m", "build", f"--{kind}", "--no-isolation"),
        *("--outdir", target, source),
    )
    (made,) = (path for path in target.iterdir() if path.suffix in (".whl", ".gz"))
    return made


def is_rubbish(name: str) -> bool:
    """Say whether a file or directory of that name is none of the project's sources."""
    return name in RUBBISH or (name.startswith(".") and name.endswith("_cache"))


def sources(*directories: str) -> set[str]:
    """Return the files of *directories* in the checkout."""
    return {
        str(path.relative_to(ROOT))
        for directory in directories
        for path in (ROOT / directory).rglob("*")
        if path.is_file() and not any(is_rubbish(part) for part in path.parts)
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy."""
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it, and our own dependencies behind it.

    The dependencies come by a ``.pth`` line, which Python reads after its own packages; so the
    wheel wins over an editable install of the checkout, whose own ``.pth`` is not followed.
    """
    environment = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    packages = Path(
        sysconfig.get_path("purelib", "venv", {"base": str(environment), "platbase": ""})
    )
    run(
        *(sys.executable, "-m", "pip", "--python", environment / "bin/python", "install"),
        *("--quiet", "--no-index", "--no-deps", wheel),
    )
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def test_wheel_holds_library_suites_and_recipes(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {"harness/recipes" + name.removeprefix("images") for name in sources("images")}
    profiles = {f"harness/{name}" for name in sources("profiles")}

    assert {name for name in names if ".dist-info/" not in name} == (
        sources("harness", "suites") | recipes | profiles
    )
    assert "harness/recipes/packages.txt" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_sdist_holds_all_that_a_developer_needs(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        members = {member.name.partition("/")[2]: member for member in archive}

    wanted = sources("harness", "suites", "images", "profiles", "tests", "docs")
    wanted |= {"trapline", "pyproject.toml", "conftest.py", "README.md", "LICENSE", ".ci/run"}
    assert not wanted - set(members)
    assert members["trapline"].mode & 0o111


def test_installed_command_says_its_version(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "bin/trapline", "--version", cwd=tmp_path).startswith("trapline ")


def test_installed_package_finds_its_own_recipes(installed: Path, tmp_path: Path) -> None:
    said = run(
        installed / "bin/python",
        *("-c", "from harness import paths; print(paths.recipes_dir())"),
        cwd=tmp_path,
    )

    recipes = Path(said.strip())
    assert recipes.is_relative_to(installed)
    assert (recipes / "packages.txt").is_file()


def test_installed_command_has_the_profiles(installed: Path, tmp_path: Path) -> None:
    assert "qat-c62x" in run(installed / "bin/trapline", "profile", "list", cwd=tmp_path)


def test_installed_command_has_no_tests_of_its_own(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed / "bin/trapline", "test"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "clone the repository" in done.stderr


def test_installed_command_knows_the_rules(installed: Path, tmp_path: Path) -> None:
    assert "MAP-" in run(installed / "bin/trapline", "rules", "--json", cwd=tmp_path)

"""A skipped test says what would enable it: `harness.testing.skip` is the only way to skip."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness import errors
from harness.testing import skip

WAY = re.compile(
    r"--[a-z0-9]|\d|CONFIG_|modprobe|sriov_numvfs"
    r"|\b(?:QEMU|IBM Z|VT-d|host|guest|machine|computer|kernel|image|build|checkout|variant)\b"
)
"""Something that a reader can give, build or get: an option, a version, a kernel, a machine."""
MARKS = ("skip", "skipif", "xfail")


def ways_round(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that skip in another way, which says nothing of how to have the test."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Name(id="pytest"), attr="skip" | "xfail" | "importorskip"
                )
            ):
                yield node.lineno
            case ast.Attribute(value=ast.Attribute(attr="mark"), attr=name) if name in MARKS:
                yield node.lineno
            case ast.ImportFrom(module="pytest"):
                yield node.lineno


def skips(tree: ast.AST) -> Iterator[tuple[int, ast.expr | None]]:
    """Yield the line of each skip, and what would enable the test."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="skip"), keywords=keywords):
                yield node.lineno, next((k.value for k in keywords if k.arg == "enabled_by"), None)


def words(value: ast.expr | None, constants: Mapping[str, ast.expr]) -> str | None:
    """Return the words of an expression that are there to be read; None if there are none."""
    match value:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=values):
            return " ".join(filter(None, (words(part, constants) for part in values)))
        case ast.FormattedValue(value=inner):
            return words(inner, constants)
        case ast.Name(id=name) if name in constants:
            return words(constants[name], constants)
    return None


def constants_of(tree: ast.Module) -> dict[str, ast.expr]:
    """Return what the names of a module stand for."""
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                found[name] = value
    return found


@pytest.fixture(scope="module")
def trees(root: Path) -> dict[str, ast.Module]:
    """Every module of the suites."""
    files = sorted((root / "suites").rglob("*.py"))
    return {str(file.relative_to(root)): ast.parse(file.read_text()) for file in files}


def test_suites_skip_in_one_way_alone(trees: dict[str, ast.Module]) -> None:
    found = [f"{name}:{line}" for name, tree in trees.items() for line in ways_round(tree)]

    assert not found, "use harness.testing.skip, which asks for what would enable the test"


def test_every_skip_says_what_would_enable_the_test(trees: dict[str, ast.Module]) -> None:
    constants = {k: v for tree in trees.values() for k, v in constants_of(tree).items()}
    read = {
        f"{name}:{line}": words(value, constants)
        for name, tree in trees.items()
        for line, value in skips(tree)
    }
    vague = {place: said for place, said in read.items() if said is not None}

    assert len(vague) > 60
    assert not {place: said for place, said in vague.items() if not WAY.search(said)}


@pytest.mark.parametrize(
    "text",
    [
        "import pytest\npytest.skip('no igb')",
        "import pytest\npytest.importorskip('dpdk')",
        "import pytest\n@pytest.mark.skipif(True, reason='x')\ndef test_x(): ...",
        "from pytest import skip",
    ],
)
def test_another_way_is_noticed(text: str) -> None:
    assert list(ways_round(ast.parse(text)))


def test_a_vague_way_is_noticed() -> None:
    tree = ast.parse("LATER = 'a newer one'\nskip('too old', enabled_by=f'{LATER}')")
    ((_, value),) = skips(tree)

    said = words(value, constants_of(tree))

    assert said == "a newer one"
    assert not WAY.search(said)


def test_a_skip_reads_as_one_sentence() -> None:
    said = "^this QEMU has no iommufd backend: QEMU 9.0 or later would enable this$"

    with pytest.raises(BaseException, match=said):  # what skips a test is no Exception
        skip("this QEMU has no iommufd backend", enabled_by="QEMU 9.0 or later")


@pytest.mark.parametrize("error", [errors.MissingDevice, errors.NoIommu])
def test_what_a_host_lacks_is_never_said_without_a_hint(error: type[errors.HostLacks]) -> None:
    with pytest.raises(TypeError, match="hint"):
        error("no igb")  # type: ignore[call-arg]

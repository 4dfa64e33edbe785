"""``trapline bench``: what is refused before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.bench import virtme
from harness.bench.catalogue import CATALOGUE, choose
from harness.cli import app
from harness.commands.bench import BenchRequest, check
from harness.errors import ConfigError, MissingPackage

ROOT = Path(__file__).resolve().parents[2]


def test_the_list_names_every_benchmark() -> None:
    said = CliRunner().invoke(app, ["bench", "--list"])

    assert said.exit_code == 0
    assert [line.split()[0] for line in said.output.splitlines()] == list(CATALOGUE)


def test_names_are_taken_once_each_and_none_means_all() -> None:
    assert choose(["parse", "cold", "parse"]) == ["parse", "cold"]
    assert choose([]) == [name for name in CATALOGUE if name not in ("kernels", "suite")]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (BenchRequest(names=("warmth",)), "no benchmark is called 'warmth'"),
        (BenchRequest(against=("qemu",)), "no peer is called 'qemu'"),
        (BenchRequest(rounds=0), "0 rounds measure nothing"),
    ],
)
def test_what_is_not_known_is_refused_with_what_there_is(
    request_: BenchRequest, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check(request_)

    assert caught.value.hint


def test_a_peer_that_is_not_installed_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(virtme, "find_vng", lambda: None)

    with pytest.raises(MissingPackage, match="virtme-ng is not installed"):
        check(BenchRequest(names=("parse",), against=("virtme-ng",)))


def test_every_benchmark_is_documented() -> None:
    document = (ROOT / "docs/bench.md").read_text()

    assert [name for name in CATALOGUE if f"### `{name}`" not in document] == []

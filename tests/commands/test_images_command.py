"""``trapline images`` on a small store."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.status import Status
from typer.testing import CliRunner

from harness.commands import images
from harness.commands.images_app import app
from harness.errors import ConfigError
from harness.images.cache import Store
from harness.report.build_progress import build_progress
from harness.step import step


def fill(into: Path) -> None:
    (into / "f").write_bytes(bytes(200_000))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("TRAPLINE_CACHE", str(tmp_path))
    made = Store()
    for name, key in (("kernel", "aaaa1"), ("kernel", "bbbb2"), ("host", "cccc3")):
        made.obtain(key, fill, name, packages={"p": "1"})
    return made


def test_the_list_has_sizes_ages_and_packages(store: Store) -> None:
    lines = images.as_lines(images.rows(store), now=images.rows(store)[0].built + 7200)

    assert len(lines) == 4
    assert "0.2 MB" in lines[1]
    assert "2 h" in lines[1]
    assert str(store.root) in lines[1]


def test_json_has_what_the_list_has(store: Store) -> None:
    done = CliRunner().invoke(app, ["list", "--json"])

    assert [row["name"] for row in json.loads(done.stdout)] == ["host", "kernel", "kernel"]


def test_an_empty_store_says_how_to_fill_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAPLINE_CACHE", str(tmp_path))

    assert "trapline images build" in CliRunner().invoke(app, ["list"]).stdout


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["kernel"], {"aaaa1", "bbbb2"}),
        (["kernel/bb"], {"bbbb2"}),
        (["cccc"], {"cccc3"}),
        (["host", "aaaa1"], {"cccc3", "aaaa1"}),
        ([], {"aaaa1", "bbbb2", "cccc3"}),
    ],
)
def test_images_are_named_by_kind_key_or_both(
    store: Store, names: list[str], keys: set[str]
) -> None:
    assert {one.key for one in images.select(store, names)} == keys


def test_a_name_that_means_nothing_lists_what_there_is(store: Store) -> None:
    with pytest.raises(ConfigError, match="there are host, kernel"):
        images.select(store, ["nosuch"])


def test_verify_tells_damaged_from_whole_and_its_exit_status_says_so(store: Store) -> None:
    assert CliRunner().invoke(app, ["verify"]).exit_code == 0
    path = store.entries()[0].dir / "f"
    path.chmod(0o644)
    path.write_bytes(bytes(199_999) + b"x")

    done = CliRunner().invoke(app, ["verify"])

    assert done.exit_code == 1
    assert done.stdout.count("whole") == 2
    assert "f has changed" in done.stdout


def test_rm_removes_what_is_named_and_nothing_else(store: Store) -> None:
    done = CliRunner().invoke(app, ["rm", "kernel/aaaa"])

    assert "removed kernel aaaa1" in done.stdout
    assert {one.key for one in store.entries()} == {"bbbb2", "cccc3"}


def test_rm_without_a_name_removes_nothing(store: Store) -> None:
    with pytest.raises(ConfigError, match="nothing was named"):
        images.remove(store=store)

    assert len(store.entries()) == 3


def test_rm_all_takes_downloads_along(store: Store, tmp_path: Path) -> None:
    (tmp_path / "apt/archives").mkdir(parents=True)

    images.remove(everything=True, store=store)

    assert store.entries() == []
    assert not (tmp_path / "apt").exists()


def test_an_unknown_kind_cannot_be_built(store: Store) -> None:
    with pytest.raises(ConfigError, match="there are probe, kernel, host, guest, qemu"):
        list(images.build(["nosuch"], store=store))


def test_building_the_probe_yields_its_path_and_size(store: Store) -> None:
    (built,) = images.build(["probe"], store=store)

    assert built.path.stat().st_size == built.size
    assert str(built.path) in built.line()


def test_without_a_terminal_long_steps_are_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.report.build_progress.WORTH_A_LINE", 0.0)
    output = io.StringIO()

    with build_progress(Console(file=output)) as progress, step("build [thing]"):
        progress("download", 50.0)

    assert output.getvalue().startswith("build [thing] (")


def test_on_a_terminal_the_live_line_names_the_step_and_the_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(Status, "update", lambda _, text: shown.append(text))
    console = Console(file=io.StringIO(), force_terminal=True)

    with build_progress(console) as progress, step("build [thing]"):
        progress("download", 50.0)

    assert any(r"build \[thing] 50%" in text for text in shown)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0 s"), (59, "59 s"), (3600, "1 h"), (172_800, "2 d")]
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert images.human_age(seconds) == text


def test_environments_are_counted_listed_and_pruned(store: Store) -> None:
    broken = store.root.parent / "venv/aaaa-3.12"
    broken.mkdir(parents=True)
    (broken / "f").write_bytes(bytes(200_000))

    listed = CliRunner().invoke(app, ["list"]).stdout
    would = json.loads(CliRunner().invoke(app, ["prune", "--dry-run", "--json"]).stdout)
    said = CliRunner().invoke(app, ["prune"]).stdout

    assert "1 Python environment (0.2 MB): trapline images prune" in listed
    assert [(row["path"], row["checkout"], row["goes"]) for row in would] == [
        (str(broken), None, True)
    ]
    assert "removed   aaaa-3.12" in said
    assert "removed: 1 Python environment (0.2 MB); stays: 0 Python environments" in said
    assert not broken.exists()
    assert len(store.entries()) == 3


def test_days_without_use_are_not_negative() -> None:
    done = CliRunner().invoke(app, ["prune", "--unused", "-1"])

    assert isinstance(done.exception, ConfigError)

"""``trapline profile``: what needs no host."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.commands import profile
from harness.errors import ConfigError
from harness.model.pci import PciId


def said(*words: str) -> str:
    done = CliRunner().invoke(app, ["profile", *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_list_names_every_profile() -> None:
    names = [line.split()[0] for line in said("list").splitlines()]

    assert names == ["igb", "nvme", "qat-c62x"]


def test_show_says_every_item_and_defect() -> None:
    shown = said("show", "qat-c62x")

    assert "virtual.flr" in shown and "VQQ-122" in shown
    assert "00504000" in shown


def test_a_file_is_a_profile_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('title = "mine"\nsource = "me"\n[physical]\nid = "1234:5678"\n')

    loaded = profile.load_profile(str(file))

    assert (loaded.name, loaded.physical.id) == ("mine", PciId(0x1234, 0x5678))


def test_a_name_that_is_none_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="igb, nvme, qat-c62x"):
        profile.load_profile("igbb")


@pytest.mark.parametrize(
    ("host", "bdf", "words"),
    [("virtual", "03:00.0", "--bdf names a device"), ("local", "3", "not a PCI address"),
     ("elsewhere", None, "elsewhere")],
)  # fmt: skip
def test_wrong_usage_is_told(host: str, bdf: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        profile.check_profile("igb", host=host, bdf=bdf)

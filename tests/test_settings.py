"""Settings: who wins, and what is said about a mistake."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest

from harness.errors import ConfigError
from harness.settings import Settings, find_file, load_settings


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    assert load_settings({}, {}, tmp_path / "trapline.toml") == Settings(
        qemu="debian:trixie",
        l0_qemu="debian:trixie",
        kernel="debian:trixie",
        guest_kernel="debian:trixie",
        host="virtual",
    )


def test_option_beats_variable_beats_file_beats_default(tmp_path: Path) -> None:
    (tmp_path / "trapline.toml").write_text('qemu = "f"\nkernel = "f"\nhost = "local"\n')
    options = {"qemu": "o", "kernel": None}
    environ = {"TRAPLINE_QEMU": "v", "TRAPLINE_KERNEL": "v", "TRAPLINE_CACHE": "/elsewhere"}

    found = load_settings(options, environ, tmp_path / "trapline.toml")

    assert (found.qemu, found.kernel, found.host) == ("o", "v", "local")
    assert found.l0_qemu == "debian:trixie"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("colour = 'red'", "colour"), ("qemu = 7", "qemu"), ("qemu = ", "no TOML")],
)
def test_a_wrong_file_is_named_with_what_is_wrong(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "trapline.toml").write_text(text)

    with pytest.raises(ConfigError, match=complaint) as caught:
        load_settings({}, {}, tmp_path / "trapline.toml")

    assert caught.value.evidence == tmp_path / "trapline.toml"


def test_settings_do_not_change() -> None:
    with pytest.raises(pydantic.ValidationError):
        Settings().qemu = "other"


def test_options_say_only_what_is_not_default() -> None:
    assert Settings(qemu="./q", guest_kernel="k").options() == ["--qemu=./q", "--guest-kernel=k"]
    assert Settings().options() == []


def test_the_file_of_the_nearer_directory_counts(tmp_path: Path) -> None:
    here, root = tmp_path / "here", tmp_path
    here.mkdir()
    (root / "trapline.toml").touch()

    assert find_file(here, root) == root / "trapline.toml"
    (here / "trapline.toml").touch()
    assert find_file(here, root) == here / "trapline.toml"

"""What a run is asked to judge: from options, ``TRAPLINE_*`` variables, ``trapline.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pydantic
import pytest

from harness.errors import ConfigError

FILE_NAME = "trapline.toml"


class Settings(pydantic.BaseModel):
    """The subjects of a run; every value is a spec that its layer understands."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    qemu: str = "debian:trixie"
    """The QEMU under test: a build name or a path."""
    l0_qemu: str = "debian:trixie"
    """The QEMU that runs virtual hosts: lab equipment, not under test."""
    kernel: str = "debian:trixie"
    """Kernel of the host."""
    guest_kernel: str = "debian:trixie"
    """Kernel of the guest: the same whatever host is judged; empty means that of the host."""
    host: str = "virtual"
    """``virtual``, ``local`` or ``ssh://user@name``."""
    saved_state: str = "auto"
    """How virtual hosts are saved: ``auto``, ``private``, ``mapped``, ``plain``; ``off``: boot."""

    def options(self) -> list[str]:
        """Return the options that give these settings again, defaults left out."""
        return [
            f"--{name.replace('_', '-')}={value}"
            for name, value in self
            if value != type(self).model_fields[name].default
        ]


SUBJECT = pytest.StashKey[dict[str, str]]()
"""What is judged: the answers of the hook ``pytest_trapline_subject``."""
SETTINGS = pytest.StashKey[Settings]()


def find_file(*directories: Path) -> Path:
    """Return the first ``trapline.toml`` that is there, or where the last one would be."""
    places = [directory / FILE_NAME for directory in directories]
    return next((place for place in places if place.is_file()), places[-1])


def load_settings(
    options: Mapping[str, str | None], environ: Mapping[str, str], file: Path
) -> Settings:
    """Return the settings: option, then ``TRAPLINE_*`` variable, then file, then default.

    :param options: by field name; None where the option was not given.
    :param file: may be missing.
    :raise ConfigError: the file is no TOML, or has an unknown key or a wrong value.
    """
    values = _read(file) if file.is_file() else {}
    for name in Settings.model_fields:
        given = options.get(name)
        if given is None:
            given = environ.get(f"TRAPLINE_{name.upper()}")
        if given is not None:
            values[name] = given
    try:
        return Settings.model_validate(values)
    except pydantic.ValidationError as error:
        seen = "\n".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise ConfigError(
            "settings are wrong",
            seen=seen,
            evidence=file,
            hint=f"known settings: {', '.join(Settings.model_fields)}",
        ) from error


def _read(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the settings file is no TOML", seen=str(error), evidence=file
        ) from error

"""Device profiles: those that come with trapline, and files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness import paths
from harness.errors import ConfigError
from harness.model.profile import DeviceProfile
from harness.parse.profile import parse_profile

SUFFIX: Final = ".toml"


def load_profile(name: str) -> DeviceProfile:
    """Return a profile: one of ours by name, or a file.

    :raise ConfigError: there is none, or it is not one.
    """
    path = Path(name) if name.endswith(SUFFIX) else paths.profiles_dir() / f"{name}{SUFFIX}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"no profile {name}",
            seen=str(error),
            hint=f"there are {', '.join(profile_names())}; or give a file that ends in {SUFFIX}",
        ) from error
    return parse_profile(text, path.stem)


def profile_names() -> tuple[str, ...]:
    """Return the names of our profiles."""
    return tuple(sorted(path.stem for path in paths.profiles_dir().glob(f"*{SUFFIX}")))


def all_profiles() -> tuple[DeviceProfile, ...]:
    """Return our profiles."""
    return tuple(map(load_profile, profile_names()))

"""Room for the results: what a run needs, and what is said when there is none left."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Final

import pytest

from harness.errors import ConfigError

FLOOR: Final = 64 << 20
"""Bytes without which no run begins: one machine leaves some two megabytes of evidence."""
PART: Final = 512 << 20
"""Bytes that are plenty for a selection of the tests."""
WHOLE: Final = 2 << 30
"""Bytes that a run of everything may take."""
FULL = pytest.StashKey[bool]()
"""Set to True where a run ended because nothing more could be written."""
_NUMBERS = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: BaseException) -> bool:
    """Say whether *error* comes from a file system, or a quota, that is used up."""
    return isinstance(error, OSError) and error.errno in _NUMBERS


def none_left(directory: Path) -> ConfigError:
    """Return the error of a run that could not write on in *directory*."""
    return ConfigError(
        f"no space left in {directory}: the run has ended early",
        hint="make room there, or name another place with --results, and run it again",
    )


def look(results: Path, wanted: int) -> str:
    """Look at the file system of *results*, which need not be there yet.

    :param wanted: bytes that the run may take.
    :return: a warning, empty if there is room.
    :raise ConfigError: there are fewer than `FLOOR` bytes.
    """
    there = next(
        (place for place in (results, *results.parents) if place.is_dir()), Path(results.anchor)
    )
    try:
        free = shutil.disk_usage(there).free
    except OSError:  # who may not look there is told so when the directory is made
        return ""
    said = f"{free >> 20} MiB free"
    if free < FLOOR:
        raise ConfigError(
            f"no space left in {results} for a run: {said}, at least {FLOOR >> 20} are needed",
            hint="make room there, or name another place with --results",
        )
    if free < wanted:
        return f"{said} in {results}; a run like this may take {wanted >> 20} MiB"
    return ""

"""Typed reading of JSON values; every error names the key by its path."""

from __future__ import annotations

from collections.abc import Mapping


class Fields:
    """Typed access to a JSON object; every error names the key by its path.

    :param known: the keys it may have, separated by blanks.
    :raise ValueError: *values* is no object, or has another key.
    """

    def __init__(self, values: object, where: str, known: str) -> None:
        if not isinstance(values, Mapping):
            raise ValueError(f"{where}: expected an object, found {type(values).__name__}")
        unknown = sorted(str(key) for key in values.keys() - set(known.split()))
        if unknown:
            raise ValueError(f"{where}: unknown key {unknown[0]!r}; known are: {known}")
        self._values: Mapping[str, object] = values
        self._where = where

    def has(self, key: str) -> bool:
        """Say whether *key* is there and not null."""
        return self._values.get(key) is not None

    def _get(self, key: str) -> object:
        if not self.has(key):
            raise ValueError(f"{self._where}.{key}: missing")
        return self._values[key]

    def text(self, key: str, default: str | None = None) -> str:
        """Return text; *default* if the key is missing."""
        if default is not None and not self.has(key):
            return default
        value = self._get(key)
        if not isinstance(value, str):
            raise ValueError(f"{self._where}.{key}: expected text, found {value!r}")
        return value

    def optional_text(self, key: str) -> str | None:
        """Return text, or None if the key is missing or null."""
        return self.text(key) if self.has(key) else None

    def number(self, key: str, default: int | None = None) -> int:
        """Return a number that is not negative, given as such or as ``"0x10"``."""
        if default is not None and not self.has(key):
            return default
        return as_number(self._get(key), f"{self._where}.{key}")

    def flag(self, key: str) -> bool:
        """Return true or false; false if the key is missing."""
        value = self._values.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise ValueError(f"{self._where}.{key}: expected true or false, found {value!r}")
        return value

    def items(self, key: str) -> list[object]:
        """Return a list; empty if the key is missing."""
        value = self._values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise ValueError(f"{self._where}.{key}: expected a list, found {value!r}")
        return value

    def pairs(self, key: str) -> Mapping[str, object]:
        """Return an object; empty if the key is missing."""
        value = self._values.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise ValueError(f"{self._where}.{key}: expected an object, found {value!r}")
        return value

    def value(self, key: str) -> object:
        """Return whatever is there, None if nothing is."""
        return self._values.get(key)


def as_number(value: object, where: str) -> int:
    """Read 16, ``"16"`` or ``"0x10"``.

    :raise ValueError: it is something else, or negative.
    """
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        try:
            number = int(value, 0)
        except ValueError:
            number = None
    if number is None or number < 0:
        raise ValueError(f'{where}: expected a number (like 16 or "0x10"), found {value!r}')
    return number

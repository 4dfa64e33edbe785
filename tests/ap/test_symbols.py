"""Addresses in a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.ap.symbols import Symbols, forget_symbols, parse_kallsyms, remembered_symbols
from harness.errors import HostError

KALLSYMS = """\
000003ffe0101698 T illegal_op
000003ffe0101a00 t do_illegal_op
000003ffe17f1230 B sclp
000003ffe0c156e8 T __sie64a
000003ff80001000 t illegal_op\t[some_module]
"""
FOUND = Symbols(0x3FFE0101698, 0x3FFE17F1230, 0x3FFE0C156E8)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TRAPLINE_CACHE", str(tmp_path))
    return tmp_path


def test_the_first_symbol_of_a_name_is_the_kernels() -> None:
    assert parse_kallsyms(KALLSYMS) == FOUND


def test_an_older_name_of_the_function_is_known_and_data_may_be_missing() -> None:
    text = "0000000000100100 T illegal_op\n0000000000200200 T sie64a\n"

    assert parse_kallsyms(text) == Symbols(0x100100, 0, 0x200200)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", "no such symbol, among 0 lines"),
        ("0000000000000000 T illegal_op\n", "without an address"),
    ],
)
def test_a_kernel_that_does_not_say_is_refused(text: str, seen: str) -> None:
    with pytest.raises(HostError, match=seen):
        parse_kallsyms(text)


def test_addresses_are_looked_for_once_and_again_when_they_led_nowhere() -> None:
    boots: list[int] = []

    def discover() -> Symbols:
        boots.append(1)
        return FOUND

    assert [remembered_symbols("kernel", discover) for _ in range(3)] == [FOUND] * 3
    assert len(boots) == 1
    remembered_symbols("another", discover)
    forget_symbols("kernel")
    forget_symbols("never known")
    remembered_symbols("kernel", discover)
    assert len(boots) == 3


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', '{"format": 0, "sclp": 1}'])
def test_a_damaged_memory_is_made_again(cache: Path, damage: str) -> None:
    remembered_symbols("kernel", lambda: Symbols(1))
    (cache / "ap-symbols" / "kernel.json").write_text(damage)

    assert remembered_symbols("kernel", lambda: FOUND) == FOUND
    assert remembered_symbols("kernel", lambda: Symbols(2)) == FOUND

"""ELF files of this machine and of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ImageError
from harness.images.elf import Elf
from harness.images.libraries import is_dynamic, needed_libraries
from harness.images.modules import modinfo


@pytest.mark.parametrize("order", ["<", ">"])
def test_sections_are_read_in_either_byte_order(elves: Any, order: str) -> None:
    read = Elf(elves.elf({".one": b"1", ".two": b"22"}, order=order), "x")

    assert read.machine == elves.S390
    assert read.sections()[".two"].data == b"22"


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_tags_of_a_module_are_read_in_either_byte_order(elves: Any, order: str) -> None:
    assert ("depends", "mdev,vfio") in modinfo(
        elves.module("a", depends="mdev,vfio", order=order), "a"
    )


def test_libraries_of_another_machine_are_found_without_running_anything(
    elves: Any, tmp_path: Path
) -> None:
    (tmp_path / "ld64.so.1").write_bytes(elves.program())
    (tmp_path / "libc.so.6").write_bytes(elves.program("ld64.so.1"))
    (tmp_path / "libjson-c.so.5").write_bytes(elves.program("libc.so.6"))
    (tmp_path / "chzdev").write_bytes(elves.program("libjson-c.so.5", "libc.so.6"))

    found = needed_libraries(tmp_path / "ld64.so.1", [tmp_path], tmp_path / "chzdev")

    assert {path.name for path in found} == {"ld64.so.1", "libc.so.6", "libjson-c.so.5"}


def test_a_library_that_nobody_has_is_named(elves: Any, tmp_path: Path) -> None:
    (tmp_path / "lszcrypt").write_bytes(elves.program("libnone.so.1"))

    with pytest.raises(ImageError, match=r"libnone\.so\.1, of lszcrypt"):
        needed_libraries(tmp_path / "ld64.so.1", [tmp_path], tmp_path / "lszcrypt")


def test_a_static_program_needs_no_library(elves: Any, tmp_path: Path) -> None:
    (tmp_path / "busybox").write_bytes(elves.elf({".text": b"x"}))

    assert not is_dynamic(tmp_path / "busybox")
    assert needed_libraries(tmp_path / "ld64.so.1", [], tmp_path / "busybox") == []


@pytest.mark.parametrize("image", [b"", b"\x7fELF\x01\x02", b"#!/bin/sh\n", b"\x7fELF\x02\x03"])
def test_what_is_no_elf_file_is_refused(image: bytes) -> None:
    with pytest.raises(ImageError, match="damaged"):
        Elf(image, "x")


@given(st.data())
def test_a_damaged_file_is_an_image_error_or_reads_as_something(
    elves: Any, data: st.DataObject
) -> None:
    image = bytearray(elves.module("vfio", versions={"module_layout": 7}))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(image[: data.draw(st.integers(0, len(image)))])

    try:
        read = Elf(damaged, "x")
        read.sections()
        read.needed()
        read.relocated(".gnu.linkonce.this_module")
        read.is_dynamic()
    except ImageError as error:
        assert "damaged" in error.summary

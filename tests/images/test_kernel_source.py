"""Kernels as they are named on the command line."""

import struct
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.images.kernel_source import KernelSource, read_release


@pytest.fixture
def bzimage(tmp_path: Path) -> Path:
    image = bytearray(0x4000)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x3000)
    text = b"7.3.0-mine (me@here) #1 SMP\0"
    image[0x3200 : 0x3200 + len(text)] = text
    path = tmp_path / "bzImage"
    path.write_bytes(image)
    return path


def test_a_suite_is_a_source() -> None:
    source = KernelSource.parse("debian:trixie-backports")

    assert source.suite == "trixie-backports"
    assert str(source) == "debian:trixie-backports"


@pytest.mark.parametrize("text", ["debian:", "debian:../etc", "debian:a b"])
def test_what_is_no_suite_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no such suite"):
        KernelSource.parse(text)


def test_a_bzimage_alone_has_everything_built_in(bzimage: Path) -> None:
    source = KernelSource.parse(str(bzimage))

    assert (source.bzimage, source.modules) == (bzimage, None)
    assert read_release(bzimage) == "7.3.0-mine"


@pytest.mark.parametrize("below", ["lib/modules/7.3.0-mine", "usr/lib/modules/7.3.0-mine",
                                   "7.3.0-mine"])  # fmt: skip
def test_modules_are_found_below_the_directory_given(
    bzimage: Path, tmp_path: Path, below: str
) -> None:
    modules = tmp_path / "mods" / below
    modules.mkdir(parents=True)

    assert KernelSource.parse(f"{bzimage}:{tmp_path / 'mods'}").modules == modules
    assert KernelSource.parse(f"{bzimage}:{modules}").modules == modules


def test_modules_of_another_kernel_are_refused(bzimage: Path, tmp_path: Path) -> None:
    (tmp_path / "mods/lib/modules/6.1.0").mkdir(parents=True)

    with pytest.raises(ConfigError, match=r"no modules of kernel 7\.3\.0-mine"):
        KernelSource.parse(f"{bzimage}:{tmp_path / 'mods'}")


def test_a_missing_kernel_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        KernelSource.parse(str(tmp_path / "nosuch"))


def test_a_vmlinux_is_not_a_bzimage(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF" + bytes(0x400))

    with pytest.raises(ConfigError, match="not a bzImage"):
        KernelSource.parse(str(tmp_path / "vmlinux"))


def test_what_there_is_for_x86_alone(bzimage: Path) -> None:
    assert KernelSource.parse("built:7.3").is_for_x86_alone
    assert KernelSource.parse(str(bzimage)).is_for_x86_alone
    assert not KernelSource.parse("debian:trixie").is_for_x86_alone

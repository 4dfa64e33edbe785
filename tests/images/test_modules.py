"""Kernel modules made by hand: tiny ELF files with a section of tags."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ImageError
from harness.images.modules import ModuleTree, Selection, modinfo


def elf(tags: dict[str, str]) -> bytes:
    """Return a relocatable ELF with sections null, .modinfo, .shstrtab."""
    info = b"".join(f"{tag}={value}\0".encode() for tag, value in tags.items())
    names = b"\0.modinfo\0.shstrtab\0"
    head = 0x40
    table = head + len(info) + len(names)

    def section(name: int, kind: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)

    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    sections = bytes(64) + section(1, 1, head, len(info))
    sections += section(10, 3, head + len(info), len(names))
    return header + info + names + sections


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "lib/modules/6.12.0-test"
    modules = {
        "kernel/fs/erofs.ko": {"depends": "libcrc32c"},
        "kernel/lib/libcrc32c.ko": {"depends": "", "softdep": "pre: crc32c"},
        "kernel/crypto/crc32c_generic.ko": {"alias": "crc32c"},
        "kernel/crypto/crc32c_other.ko": {"alias": "something-else"},
        "kernel/drivers/vfio.ko": {"softdep": "post: vfio_iommu_type1 vfio_iommu_spapr"},
        "kernel/drivers/vfio_iommu_type1.ko": {"depends": "vfio"},
        "kernel/drivers/nvme-core.ko": {"depends": ""},
        "kernel/drivers/nvme.ko": {"depends": "nvme-core"},
    }
    for place, tags in modules.items():
        path = root / f"{place}.xz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(elf(tags)))
    (root / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    return root


def test_modules_come_after_what_they_depend_on(tree: Path) -> None:
    assert ModuleTree(tree).select(["nvme"]).modules == ("nvme_core", "nvme")


def test_an_alias_among_soft_dependencies_is_resolved(tree: Path) -> None:
    selection = ModuleTree(tree).select(["erofs"])

    assert selection.modules == ("crc32c_generic", "libcrc32c", "erofs")


def test_soft_dependencies_after_a_module_come_after_it_even_in_a_circle(tree: Path) -> None:
    assert ModuleTree(tree).select(["vfio"]).modules == ("vfio", "vfio_iommu_type1")


def test_built_in_and_absent_modules_are_told_apart(tree: Path) -> None:
    assert ModuleTree(tree).select(["virtio-pci", "nosuch"]) == Selection(
        (), ("virtio_pci",), ("nosuch",)
    )


def test_copied_modules_are_plain_and_indexed(tree: Path, tmp_path: Path) -> None:
    modules = ModuleTree(tree)

    copied = modules.copy(modules.select(["nvme"]), tmp_path / "out")

    assert copied == tmp_path / "out/lib/modules/6.12.0-test"
    assert (copied / "kernel/drivers/nvme.ko").read_bytes().startswith(b"\x7fELF")
    assert "kernel/drivers/nvme.ko:" in (copied / "modules.dep").read_text()
    assert ModuleTree(copied).select(["nvme"]).modules == ("nvme_core", "nvme")


def test_a_damaged_module_is_named(tree: Path) -> None:
    (tree / "kernel/drivers/nvme.ko.xz").write_bytes(b"\xfd7zXZ garbage")

    with pytest.raises(ImageError, match=r"nvme\.ko\.xz"):
        ModuleTree(tree).select(["nvme"])


def test_a_zstd_module_says_what_to_do(tree: Path) -> None:
    (tree / "kernel/drivers/nvme.ko.xz").rename(tree / "kernel/drivers/nvme.ko.zst")

    with pytest.raises(ImageError, match="zstd -d"):
        ModuleTree(tree).select(["nvme"])


@given(st.binary(max_size=300))
def test_bytes_that_are_no_module_are_refused(junk: bytes) -> None:
    with pytest.raises(ImageError):
        modinfo(b"\x7fELF\x02\x01" + junk, "here")


@given(st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True),
                       st.from_regex(r"[a-z0-9 :,=]{0,20}", fullmatch=True)))  # fmt: skip
def test_tags_are_read_as_they_were_written(tags: dict[str, str]) -> None:
    assert dict(modinfo(elf(tags), "here")) == tags

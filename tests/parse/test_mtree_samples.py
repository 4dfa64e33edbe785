"""Every collected output of ``info mtree`` is read as tests/samples/mtree/INDEX.md says.

The numbers were counted in the files, with grep and by eye.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import ParseError
from harness.model.memory_map import Kind, MemoryMap, Owner
from harness.model.memory_tree import MemoryNode
from harness.parse.mtree import Dialect, MtreeDump, parse_mtree, parse_mtree_session
from harness.parse.mtree_format import format_memory_map, format_memory_tree

SAMPLES = Path(__file__).parents[1] / "samples" / "mtree"


@dataclass(frozen=True)
class Sample:
    """What is in one file, or in some lines of it."""

    file: str
    dialect: Dialect
    blocks: int
    """Flat views, or printed trees."""
    rows: int
    types: dict[str, int]
    spaces: int = 0
    marks: int = 0
    disabled: int = 0
    aliases: int = 0
    lines: tuple[int, int] | None = None
    """First and last line to read, from 1; None: the whole file."""
    guessed: bool = False


# fmt: off
READ = [
    Sample("local-10.0.2-q35-kvm-vtd-mtree-D.txt", Dialect.TREE, 73, 563,
           {"i/o": 472, "ram": 81, "rom": 10}, spaces=46, disabled=175, aliases=217),
    Sample("local-10.0.2-q35-kvm-vtd-mtree.txt", Dialect.TREE, 73, 388,
           {"i/o": 349, "ram": 29, "rom": 10}, spaces=46, aliases=122),
    Sample("local-10.0.2-q35-kvm-vtd-mtree-f.txt", Dialect.FLAT, 7, 163,
           {"i/o": 159, "ram": 2, "rom": 2}, spaces=46, marks=2),
    Sample("local-10.0.2-q35-kvm-vtd-mtree-f-o.txt", Dialect.FLAT, 7, 163,
           {"i/o": 159, "ram": 2, "rom": 2}, spaces=46, marks=2),
    Sample("local-10.0.2-q35-tcg-amd-iommu-mtree-f.txt", Dialect.FLAT, 6, 108,
           {"i/o": 90, "ram": 9, "rom": 9}, spaces=17),
    Sample("local-10.0.2-q35-tcg-amd-iommu-mtree.txt", Dialect.TREE, 29, 162,
           {"i/o": 120, "ram": 32, "rom": 10}, spaces=17, aliases=66),
    Sample("local-10.0.2-q35-tcg-virtio-iommu-mtree-f.txt", Dialect.FLAT, 5, 104,
           {"i/o": 92, "ram": 6, "rom": 6}, spaces=17),
    Sample("local-10.0.2-q35-tcg-virtio-iommu-mtree.txt", Dialect.TREE, 27, 161,
           {"i/o": 119, "ram": 32, "rom": 10}, spaces=17, aliases=51),
    Sample("martins3-amd-iommu-mtree.txt", Dialect.TREE, 1, 3, {"i/o": 3}, guessed=True),
    Sample("martins3-pc-kvm-mtree.txt", Dialect.TREE, 17, 313,
           {"i/o": 226, "ram": 71, "rom": 16}, spaces=13, aliases=80),
    Sample("martins3-pc-tcg-mtree-f.txt", Dialect.FLAT, 5, 200,
           {"i/o": 170, "ram": 18, "rom": 12}, spaces=15),
    Sample("martins3-pc-tcg-mtree.txt", Dialect.TREE, 19, 283,
           {"i/o": 196, "ram": 71, "rom": 16}, spaces=14, aliases=79),
    Sample("martins3-q35-vtd-pt-mtree.txt", Dialect.TREE, 54, 451,
           {"i/o": 404, "ram": 37, "rom": 10}, spaces=44, aliases=114),
    Sample("martins3-vfio-nvme-mtree.txt", Dialect.TREE, 1, 8,
           {"i/o": 6, "ramd": 2}, guessed=True),
    Sample("osdev-wiki-vtd-container-mtree.txt", Dialect.TREE, 1, 3,
           {"container": 1, "i/o": 2}, aliases=1),
    Sample("qemu-1.7-commit-637a5acb-rw-flags-mtree.txt", Dialect.TREE_FLAGS, 1, 2, {"?": 2}),
    Sample("qemu-10.0-commit-01c1caa9-riscv-iommu-msix-mtree.txt", Dialect.TREE, 1, 3,
           {"i/o": 3}, guessed=True),
    # Two outputs with a sentence of the commit message between them.
    Sample("qemu-2.9-commit-377a07aa-before-mtree-f.txt", Dialect.FLAT_SPACES, 1, 17,
           {"i/o": 7, "ram": 9, "rom": 1}, spaces=1, lines=(1, 19)),
    Sample("qemu-2.9-commit-377a07aa-before-mtree-f.txt", Dialect.FLAT_SPACES, 1, 17,
           {"i/o": 7, "ram": 6, "rom": 4}, spaces=1, lines=(20, 39)),
    Sample("qemu-2.9-commit-377a07aa-mtree-f.txt", Dialect.FLAT_SPACES, 1, 17,
           {"i/o": 7, "ram": 6, "rom": 4}, spaces=1),
    # A session of two commands, without headings.
    Sample("qemu-3.1-commit-640713d8-nvdimm-mtree.txt", Dialect.TREE, 1, 1,
           {"i/o": 1}, aliases=1, lines=(1, 3), guessed=True),
    Sample("qemu-3.1-commit-640713d8-nvdimm-mtree.txt", Dialect.FLAT, 1, 1,
           {"ram": 1}, lines=(4, 5), guessed=True),
    Sample("qemu-4.1-commit-8072aae3-ppc64-kvm-mark-mtree-f.txt", Dialect.FLAT, 1, 4,
           {"i/o": 2, "ram": 2}, marks=2),
    Sample("qemu-5.0-commit-2261d393-mtree-disabled.txt", Dialect.TREE, 1, 63,
           {"i/o": 20, "ram": 40, "rom": 3}, disabled=39, aliases=55),
    Sample("qemu-5.1-commit-2261d393-mtree.txt", Dialect.TREE, 1, 24,
           {"i/o": 20, "ram": 1, "rom": 3}, aliases=16),
    Sample("qemu-5.1-commit-ea2fe4df-ppc-prep-mtree.txt", Dialect.TREE, 2, 6,
           {"i/o": 6}, aliases=4),
    # Nine names above one tree, four above another; a prompt and a footnote follow.
    Sample("qemu-7.0-commit-7bdbf99a-raspi3b-mtree.txt", Dialect.TREE, 6, 80,
           {"i/o": 74, "ram": 6}, spaces=15, aliases=5),
    Sample("qemu-9.2-commit-55fa4be6-pci-bridge-as-mtree.txt", Dialect.TREE, 1, 9,
           {"i/o": 9}, lines=(1, 12)),
    Sample("qemu-9.2-commit-55fa4be6-pci-bridge-as-mtree.txt", Dialect.TREE, 2, 14,
           {"i/o": 14}, spaces=2, lines=(13, 30)),
    Sample("qemu-devel-2019-06-aik-accel-mark-x86-mtree-f.txt", Dialect.FLAT, 2, 34,
           {"i/o": 14, "ram": 10, "ramd": 2, "rom": 8}, spaces=9, marks=10),
    Sample("qemu-devel-2019-11-microvm-accel-list-mtree-f.txt", Dialect.FLAT, 1, 3,
           {"ram": 3}, spaces=2, marks=3),
    Sample("seed-zhang-xl710-bar3-mtree-f.txt", Dialect.FLAT, 1, 4, {"i/o": 2, "ramd": 2}),
]

REFUSED = [
    ("gdb-mtree-2018-vfio-subpage-bar.txt", "line 2: this is the output of gdb's 'qemu mtree'"),
    ("qemu-2.9-commit-377a07aa-before-mtree-f.txt", "line 20: not a line of info mtree -f"),
    ("qemu-9.2-commit-55fa4be6-pci-bridge-as-mtree.txt", "line 13: not a line of info mtree"),
    ("qemu-3.1-commit-640713d8-nvdimm-mtree.txt", "2 answers of 'info mtree' where one is"),
]
# fmt: on


def text_of(sample: Sample) -> str:
    text = (SAMPLES / sample.file).read_text(encoding="utf-8")
    if sample.lines is None:
        return text
    first, last = sample.lines
    return "\n".join(text.split("\n")[first - 1 : last])


def name_of(sample: Sample) -> str:
    lines = "" if sample.lines is None else f":{sample.lines[0]}-{sample.lines[1]}"
    return sample.file.removesuffix(".txt") + lines


def read(file: str) -> MtreeDump:
    return parse_mtree((SAMPLES / file).read_text(encoding="utf-8"))


def flat(file: str) -> MemoryMap:
    memory_map = read(file).map
    assert memory_map is not None
    return memory_map


def node(file: str, name: str) -> MemoryNode:
    tree = read(file).tree
    assert tree is not None
    return next(item for item in tree.walk() if item.name == name)


def test_every_sample_is_in_one_of_the_two_tables() -> None:
    listed = {sample.file for sample in READ} | {file for file, _ in REFUSED}

    assert listed == {path.name for path in SAMPLES.glob("*.txt")}


@pytest.mark.parametrize("sample", READ, ids=name_of)
def test_a_sample_is_read_as_the_index_says(sample: Sample) -> None:
    dump = parse_mtree(text_of(sample))

    assert dump.dialect is sample.dialect
    assert len(dump.warnings) == sample.guessed
    if dump.map is not None:
        regions = [row for view in dump.map for row in view.regions]
        assert len(dump.map.views) == sample.blocks
        assert sum(len(view.spaces) for view in dump.map) == sample.spaces
        assert sum(bool(row.accelerators) for row in regions) == sample.marks
        assert Counter(row.kind.value for row in regions) == sample.types
        assert len(regions) == sample.rows
    else:
        assert dump.tree is not None
        nodes = list(dump.tree.walk())
        assert len(dump.tree.blocks) == sample.blocks
        assert sum(len(block.spaces) for block in dump.tree.blocks) == sample.spaces
        assert Counter(item.kind.value for item in nodes) == sample.types
        assert sum(item.disabled for item in nodes) == sample.disabled
        assert sum(item.alias is not None for item in nodes) == sample.aliases
        assert len(nodes) == sample.rows


@pytest.mark.parametrize("sample", READ, ids=name_of)
def test_what_is_printed_again_reads_back_the_same(sample: Sample) -> None:
    dump = parse_mtree(text_of(sample))

    if dump.map is not None:
        assert parse_mtree(format_memory_map(dump.map)).map == dump.map
    else:
        assert dump.tree is not None
        assert parse_mtree(format_memory_tree(dump.tree)).tree == dump.tree


@pytest.mark.parametrize(
    "file",
    [
        "local-10.0.2-q35-kvm-vtd-mtree-f-o.txt",
        "local-10.0.2-q35-kvm-vtd-mtree-f.txt",
        "local-10.0.2-q35-tcg-amd-iommu-mtree-f.txt",
        "local-10.0.2-q35-tcg-virtio-iommu-mtree-f.txt",
    ],
)
def test_the_flat_form_of_the_newest_dialect_prints_byte_for_byte(file: str) -> None:
    text = (SAMPLES / file).read_text(encoding="utf-8")

    assert format_memory_map(flat(file)).rstrip("\n") == text.rstrip("\n")


def test_the_tree_form_with_disabled_regions_prints_byte_for_byte() -> None:
    text = (SAMPLES / "local-10.0.2-q35-kvm-vtd-mtree-D.txt").read_text(encoding="utf-8")
    tree = read("local-10.0.2-q35-kvm-vtd-mtree-D.txt").tree
    assert tree is not None

    assert format_memory_tree(tree).rstrip("\n") == text.rstrip("\n")


@pytest.mark.parametrize(("file", "said"), REFUSED)
def test_a_sample_that_must_be_refused_is_refused_with_the_line(file: str, said: str) -> None:
    with pytest.raises(ParseError, match=re.escape(said)):
        read(file)


@pytest.mark.parametrize("sample", READ, ids=name_of)
def test_line_ends_and_prompts_of_a_monitor_change_nothing(sample: Sample) -> None:
    plain = text_of(sample)
    options = " -f -o" if sample.dialect.is_flat else ""
    around = plain if "(qemu)" in plain else f"(qemu) info mtree{options}\n{plain}\n(qemu) quit\n"

    dump = parse_mtree("QEMU 10.0.2 monitor\n" + around.replace("\n", "\r\n"))

    expected = parse_mtree(plain)
    assert (dump.map, dump.tree) == (expected.map, expected.tree)


def test_a_session_of_two_commands_gives_both_answers() -> None:
    text = (SAMPLES / "qemu-3.1-commit-640713d8-nvdimm-mtree.txt").read_text(encoding="utf-8")

    tree_dump, flat_dump = parse_mtree_session(text)

    assert tree_dump.tree is not None
    (alias,) = tree_dump.tree.walk()
    assert (alias.kind, alias.nonvolatile) == (Kind.IO, True)
    assert flat_dump.map is not None
    (row,) = flat_dump.map.views[0].regions
    assert (row.kind, row.nonvolatile, row.name) == (Kind.RAM, True, "/objects/mem1")


def test_the_table_page_of_the_deck_is_read_to_the_byte() -> None:
    rows = flat("seed-zhang-xl710-bar3-mtree-f.txt").views[0].regions

    assert [
        (row.range.start, row.range.size, row.kind.value, row.name, row.offset) for row in rows
    ] == [
        (0xFE000000, 0x800000, "ramd", "0000:03:00.3 BAR 0 mmaps[0]", 0),
        (0xFE800000, 0x810, "i/o", "msix-table", 0),
        (0xFE800810, 0x7F0, "i/o", "0000:03:00.3 BAR 3", 0x810),
        (0xFE801000, 0x7000, "ramd", "0000:03:00.3 BAR 3 mmaps[0]", 0),
    ]


def test_owners_and_marks_are_told_apart() -> None:
    memory = flat("local-10.0.2-q35-kvm-vtd-mtree-f-o.txt").memory

    assert [str(row.range) for row in memory.owned_by("igb0")] == [
        "00000000fe400000-00000000fe41ffff",
        "00000000fe440000-00000000fe44009f",
        "00000000fe442000-00000000fe442007",
    ]
    first, last = memory.regions[0], memory.regions[-1]
    assert first.owner == Owner("obj", "path", "/objects/pc.ram")
    assert (last.owner, last.parent) == (None, Owner("obj", "path", "/machine/unattached"))
    assert (first.accelerators, last.accelerators) == (("KVM",), ("KVM",))
    assert [row.in_kvm for row in memory.regions].count(True) == 2


def test_address_spaces_of_the_same_name_are_all_kept() -> None:
    memory_map = flat("local-10.0.2-q35-kvm-vtd-mtree-f-o.txt")
    without_root = memory_map.view("igb")

    assert without_root.root is None
    assert without_root.regions == ()
    assert [space.name for space in without_root.spaces].count("igbvf") == 8
    assert memory_map.view("I/O").root == "io"


def test_a_view_with_a_root_and_no_rows_keeps_its_root() -> None:
    view = flat("local-10.0.2-q35-tcg-amd-iommu-mtree-f.txt").view("amd_iommu_devfn_160")

    assert (view.root, view.regions) == ("amdvi-sys", ())


def test_the_mark_may_be_a_list_of_accelerators() -> None:
    memory = flat("qemu-devel-2019-11-microvm-accel-list-mtree-f.txt").memory

    assert {row.accelerators for row in memory.regions} == {("kvm:tcg",)}
    assert [row.name for row in memory.regions] == ["microvm.ram", "pc.bios", "microvm.ram"]
    assert all(row.in_kvm for row in memory.regions)


def test_the_old_flags_tell_no_type() -> None:
    flash = node("qemu-1.7-commit-637a5acb-rw-flags-mtree.txt", "system.flash1")

    assert (flash.kind, flash.word, flash.range.size) == (Kind.UNKNOWN, "R-", 0x20000)


def test_the_container_of_new_versions_is_no_direct_kind() -> None:
    root = node("osdev-wiki-vtd-container-mtree.txt", "vtd-1f.2")

    assert root.kind is Kind.CONTAINER
    assert not root.kind.is_direct
    (dmar,) = root.children
    assert [child.name for child in dmar.children] == ["vtd-ir"]


def test_bars_of_assigned_devices_are_found_with_their_rows() -> None:
    tree = read("martins3-vfio-nvme-mtree.txt").tree
    assert tree is not None

    windows = tree.bar_windows()

    assert [(window.device, window.bar, str(window.range)) for window in windows] == [
        ("0000:c8:00.0", 0, "0000004800040000-0000004800047fff"),
        ("0000:03:00.0", 0, "0000004800068000-000000480006bfff"),
    ]
    bar = node("martins3-vfio-nvme-mtree.txt", "0000:03:00.0 base BAR 0")
    assert [child.name for child in bar.children] == ["0000:03:00.0 BAR 0", "msix-table"]
    assert tree.bar_windows("0000:c8:00.0") == windows[:1]


def test_names_above_one_tree_are_one_block() -> None:
    tree = read("qemu-7.0-commit-7bdbf99a-raspi3b-mtree.txt").tree
    assert tree is not None

    assert tree.space("memory") is tree.space("cpu-secure-memory-3")
    assert [len(block.spaces) for block in tree.blocks] == [1, 9, 4, 1, 0, 0]
    assert [block.region for block in tree.blocks][4:] == ["ram", "bcm2835-peripherals"]


def test_a_name_may_hold_brackets_and_a_star() -> None:
    alias = node("qemu-7.0-commit-7bdbf99a-raspi3b-mtree.txt", "bcm2835-gpu-ram-alias[*]")

    assert alias.alias is not None
    assert (alias.alias.target, alias.alias.range.size) == ("ram", 0x40000000)

"""Rules about texts that no QEMU of today prints: other dialects, other names, damage.

What the QEMU under test prints is judged by ``suites/mtree``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ParseError
from harness.model.device_windows import named_device
from harness.model.memory_map import Kind, MemoryMap
from harness.model.memory_tree import MemoryNode
from harness.parse.mtree import (
    Dialect,
    MtreeDump,
    parse_memory_map,
    parse_memory_tree,
    parse_mtree,
)
from harness.testing import must_fail

SAMPLES = Path(__file__).parents[1] / "samples" / "mtree"
FLAGS = "qemu-1.7-commit-637a5acb-rw-flags-mtree.txt"
FIRST_FLAT = "qemu-2.9-commit-377a07aa-mtree-f.txt"
NEW_FLAT = "local-10.0.2-q35-tcg-amd-iommu-mtree-f.txt"
CONTAINERS = "osdev-wiki-vtd-container-mtree.txt"
TREE = "martins3-vfio-nvme-mtree.txt"
GDB = "gdb-mtree-2018-vfio-subpage-bar.txt"
ROW = "  00000000fe000000-00000000fe000fff (prio 0, i/o): "


def text_of(file: str) -> str:
    return (SAMPLES / file).read_text(encoding="utf-8")


def read(file: str) -> MtreeDump:
    return parse_mtree(text_of(file))


def nodes(dump: MtreeDump) -> list[MemoryNode]:
    assert dump.tree is not None
    return list(dump.tree.walk())


# -- types ------------------------------------------------------------------------------------


def check_types_unknown(dump: MtreeDump) -> None:
    found = [node.kind for node in nodes(dump)]
    assert found and set(found) == {Kind.UNKNOWN}, found


@pytest.mark.rule("MT-05")
def test_flags_of_old_versions_tell_no_type() -> None:
    dump = read(FLAGS)

    check_types_unknown(dump)
    assert dump.dialect is Dialect.TREE_FLAGS
    assert not any(node.kind.is_direct for node in nodes(dump))


@pytest.mark.parametrize("file", [TREE, CONTAINERS])
@pytest.mark.negative_control("MT-05")
def test_a_text_with_types_is_noticed(file: str) -> None:
    with must_fail():
        check_types_unknown(read(file))


def check_containers(dump: MtreeDump) -> None:
    found = [node for node in nodes(dump) if node.kind is Kind.CONTAINER]
    assert found and not any(node.kind.is_direct for node in found), found


@pytest.mark.rule("MT-04")
def test_containers_of_new_versions_are_not_direct() -> None:
    check_containers(read(CONTAINERS))


@pytest.mark.negative_control("MT-04")
def test_a_text_without_the_word_container_is_noticed() -> None:
    with must_fail():
        check_containers(parse_mtree(text_of(CONTAINERS).replace("container)", "ram)")))


# -- headings ---------------------------------------------------------------------------------


def check_a_block_for_each_space(text: str) -> None:
    dump = parse_mtree(text)
    assert dump.dialect is Dialect.FLAT_SPACES and dump.map is not None, dump.dialect
    names = [[space.name for space in view.spaces] for view in dump.map]
    headings = [line for line in text.splitlines() if line.startswith("address-space (flat")]
    assert names == [[line.partition(": ")[2]] for line in headings], names


@pytest.mark.rule("MT-10")
def test_first_flat_form_has_a_block_for_each_space() -> None:
    check_a_block_for_each_space(text_of(FIRST_FLAT))


@pytest.mark.negative_control("MT-10")
def test_the_grouped_form_of_today_is_noticed() -> None:
    with must_fail():
        check_a_block_for_each_space(text_of(NEW_FLAT))


def check_refused(text: str) -> None:
    said = "the text was read"
    try:
        parse_mtree(text)
    except ParseError as error:
        said = error.summary
    assert "gdb's 'qemu mtree'" in said, said


@pytest.mark.rule("MT-30")
def test_text_of_the_debugger_is_refused() -> None:
    check_refused(text_of(GDB))


@pytest.mark.parametrize("text", [text_of(TREE), "nothing of the kind"])
@pytest.mark.negative_control("MT-30")
def test_a_text_of_the_monitor_is_not_refused_for_that(text: str) -> None:
    with must_fail():
        check_refused(text)


# -- names ------------------------------------------------------------------------------------


def rows(*names: str) -> MemoryMap:
    text = "".join(
        ROW.replace("fe000", f"fe{number:03x}") + f"{name}\n" for number, name in enumerate(names)
    )
    return parse_memory_map(f'FlatView #0\n AS "memory", root: system\n{text}\n')


def check_attributed(found: MemoryMap, device: str, count: int) -> None:
    owned = [row.name for row in found.memory.regions if named_device(row) == device]
    assert len(owned) == count, owned


OLD_NAMES = (
    "VFIO 0000:03:00.0 BAR 0",
    "VFIO 0000:03:00.0 BAR 0 mmap",
    "VFIO 0000:03:00.0 BAR 3 mmap msix-hi",
)


@pytest.mark.rule("NM-05")
def test_names_of_old_versions_tell_the_device() -> None:
    check_attributed(rows(*OLD_NAMES), "0000:03:00.0", 3)


@pytest.mark.negative_control("NM-05")
def test_names_of_another_device_are_noticed() -> None:
    with must_fail():
        check_attributed(rows(*OLD_NAMES[1:], "VFIO 0000:04:00.0 BAR 0"), "0000:03:00.0", 3)


PLATFORM = "fff51000.ethernet"
"""A name of ``vfio-platform`` ends with a line end (hw/vfio/platform.c): the row is broken."""
BROKEN = (
    f"VFIO {PLATFORM} region 0\n",
    f"VFIO {PLATFORM} region 1\n mmaps[0] KVM",
    f"VFIO {PLATFORM} region 2\n @0000000000000800 owner:{{dev id=eth}} KVM",
    "serial",
)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.rule("NM-11")
def test_names_of_platform_devices_tell_the_device(line_end: str) -> None:
    text = "".join(
        ROW.replace("fe000", f"fe{number:03x}") + f"{name}\n" for number, name in enumerate(BROKEN)
    )
    text = f'FlatView #0\n AS "memory", root: system\n{text}\n'

    found = parse_memory_map(text.replace("\n", line_end))

    check_attributed(found, PLATFORM, 3)
    one, two, three, other = found.memory.regions
    assert (one.name, two.name) == (
        f"VFIO {PLATFORM} region 0",
        f"VFIO {PLATFORM} region 1 mmaps[0]",
    )
    assert (two.in_kvm, three.in_kvm, three.offset) == (True, True, 0x800)
    assert three.owner is not None and other.name == "serial"


@pytest.mark.negative_control("NM-11")
def test_a_name_without_the_word_region_is_noticed() -> None:
    with must_fail():
        check_attributed(rows(f"VFIO {PLATFORM}", f"{PLATFORM} region 1"), PLATFORM, 2)


def test_a_broken_row_of_the_tree_stays_one_node() -> None:
    text = (
        "address-space: memory\n"
        "  0000000000000000-ffffffffffffffff (prio 0, i/o): system\n"
        f"  {ROW}VFIO {PLATFORM} region 0\n\n"
        f"    {ROW}VFIO {PLATFORM} region 0\n mmaps[0]\n"
        "    00000000ff000000-00000000ff000fff (prio 0, i/o): serial\n\n"
        "address-space: I/O\n  0000000000000000-000000000000ffff (prio 0, i/o): io\n\n"
    )

    tree = parse_memory_tree(text)

    (system,) = tree.space("memory").roots
    assert [child.name for child in system.children] == [f"VFIO {PLATFORM} region 0", "serial"]
    assert [node.name for node in tree.space("I/O").walk()] == ["io"]


def test_a_row_behind_a_platform_device_is_not_swallowed() -> None:
    text = f"FlatView #0\n{ROW}VFIO {PLATFORM} region 0\n mmaps of nobody\n"

    with pytest.raises(ParseError, match="line 3: not a line of info mtree -f"):
        parse_mtree(text)


# -- the dispatch tree ------------------------------------------------------------------------

OLD_DISPATCH = """FlatView #0
 AS "memory", root: system
 Root memory region: system
  00000000fe7c2000-00000000fe7c240f (prio 0, i/o): msix-table
  Dispatch
    Physical sections
      #0 @0000000000000000..ffffffffffffffff (noname) [unassigned]
      #1 @00000000fe7c2000..0000000000000fff (noname) [not dirty]
      #2 @00000000fe7c2000..000000000000040f msix-table [ROM]
    Nodes (9 bits per level, 6 levels) ptr=[3] skip=4

"""
"""Before 7.2 the size stood where the end should (commit f9c307c3f9)."""


def check_subpage(text: str, start: int) -> None:
    (dispatch,) = parse_mtree(text).dispatches
    assert dispatch is not None
    assert start in [section.start for section in dispatch.subpages[1:]], dispatch.subpages


@pytest.mark.rule("MT-28")
def test_wrong_ends_and_labels_do_not_hide_a_subpage() -> None:
    check_subpage(OLD_DISPATCH, 0xFE7C2000)


@pytest.mark.negative_control("MT-28")
def test_a_section_with_a_name_is_no_subpage() -> None:
    with must_fail():
        check_subpage(OLD_DISPATCH.replace("(noname) [not dirty]", "ram [not dirty]"), 0xFE7C2000)

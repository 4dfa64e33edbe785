"""Print maps and trees as the newest QEMU prints them, so that reading gives them back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.errors import ParseError
from harness.model.address import AddressRange
from harness.model.memory_map import FlatView, Kind, MemoryMap, Region
from harness.model.memory_tree import MemoryNode, MemoryTree, TreeBlock
from harness.parse.mtree import parse_memory_map, parse_memory_tree
from harness.parse.mtree_flat import NO_RENDERED, NO_ROOT
from harness.parse.mtree_line import ADDRESS_END, OVERFLOW


def _printed(span: AddressRange) -> str:
    return f"{span.start:016x}-{span.last % ADDRESS_END:016x}"


def _head(row: Region | MemoryNode) -> str:
    word = row.word if row.kind is Kind.UNKNOWN else row.kind.value
    prefix = "nv-" if row.nonvolatile else ""
    # QEMU 1.0 has no word, and a reader of the newest form would want one.
    type_part = f", {prefix}{word}" if word else ""
    return f"{_printed(row.range)} (prio {row.priority}{type_part}): "


def _owners(row: Region | MemoryNode) -> str:
    text = " orphan" if row.orphan else ""
    text += f" owner:{row.owner}" if row.owner else ""
    return text + (f" parent:{row.parent}" if row.parent else "")


def format_region(row: Region) -> str:
    """Return the line of a flat view, without its line end."""
    offset = f" @{row.offset:016x}" if row.offset else ""
    marks = "".join(f" {mark}" for mark in row.accelerators)
    return f"  {_head(row)}{row.name}{offset}{_owners(row)}{marks}"


def _view_lines(number: int, view: FlatView) -> Iterator[str]:
    yield f"FlatView #{number}"
    for space in view.spaces:
        alias = "" if space.alias is None else f", alias {space.alias}"
        yield f' AS "{space.name}", root: {space.root}{alias}'
    yield f" Root memory region: {NO_ROOT if view.root is None else view.root}"
    yield from map(format_region, view.regions)
    if not view.regions:
        yield f"  {NO_RENDERED}"
    yield ""


def format_memory_map(memory_map: MemoryMap) -> str:
    """Return *memory_map* as ``info mtree -f -o`` prints it.

    :raise ValueError: it cannot be printed so that it reads back the same (a name that ends
        like an owner or an offset, for instance).
    """
    lines = (line for n, view in enumerate(memory_map) for line in _view_lines(n, view))
    text = "".join(f"{line}\n" for line in lines)
    _check_same(memory_map, text)
    return text


def _node_lines(block: TreeBlock) -> Iterator[str]:
    pending = [(1, root) for root in reversed(block.roots)]
    while pending:
        level, node = pending.pop()
        pending.extend((level + 1, child) for child in reversed(node.children))
        body = node.name
        if node.alias is not None:
            body = f"alias {node.name} @{node.alias.target} {_printed(node.alias.range)}"
        disabled = " [disabled]" if node.disabled else ""
        trailing = "".join(f" {word}" for word in node.trailing)
        marks = f"{OVERFLOW} " * node.overflow
        yield f"{marks}{'  ' * level}{_head(node)}{body}{disabled}{_owners(node)}{trailing}"


def format_memory_tree(tree: MemoryTree) -> str:
    """Return *tree* as ``info mtree -o`` prints it.

    :raise ValueError: it cannot be printed so that it reads back the same.
    """
    lines: list[str] = []
    for block in tree.blocks:
        lines += [f"address-space: {space}" for space in block.spaces]
        lines += [] if block.region is None else [f"memory-region: {block.region}"]
        lines += [*_node_lines(block), ""]
    text = "".join(f"{line}\n" for line in lines)
    _check_same(tree, text)
    return text


def _check_same(value: MemoryMap | MemoryTree, text: str) -> None:
    """Read *text* back; the only sure way to know that free names did no harm."""
    try:
        again: MemoryMap | MemoryTree
        if isinstance(value, MemoryMap):
            if not value.views:
                return
            again = parse_memory_map(text)
        else:
            again = parse_memory_tree(text)
    except ParseError as error:
        raise ValueError(f"cannot be printed as info mtree prints it: {error}") from error
    if again != value:
        raise ValueError(f"does not read back as it was: {_first_difference(value, again)}")


def _first_difference(value: MemoryMap | MemoryTree, again: MemoryMap | MemoryTree) -> str:
    def parts(of: MemoryMap | MemoryTree) -> list[object]:
        if isinstance(of, MemoryMap):
            return [part for view in of for part in (view.spaces, view.root, *view.regions)]
        return [replace(node, children=()) for node in of.walk()]

    for one, two in zip(parts(value), parts(again), strict=False):
        if one != two:
            return f"{one} became {two}"
    return "its shape"

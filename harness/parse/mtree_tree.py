"""The tree form: ``info mtree`` of every QEMU since 1.0, with ``-o`` and ``-D``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from harness.model.memory_map import Kind
from harness.model.memory_tree import MemoryNode, MemoryTree, TreeBlock
from harness.parse.mtree_line import FLAGS, OVERFLOW, read_head, read_node
from harness.parse.mtree_text import Answer, Line

_ONLY_MARKS = re.compile(rf"(?:{re.escape(OVERFLOW)} ?)+")


@dataclass(slots=True)
class _Growing:
    """A node whose children are still being read."""

    indent: int
    node: MemoryNode
    children: list[_Growing] = field(default_factory=list)


@dataclass(slots=True)
class _Block:
    spaces: list[str] = field(default_factory=list)
    region: str | None = None
    roots: list[_Growing] = field(default_factory=list)
    open: list[_Growing] = field(default_factory=list)
    closed: bool = False


def _grown(root: _Growing) -> MemoryNode:
    """Return the frozen subtree; without recursion, so that depth has no limit."""
    order = [root]
    for item in order:
        order.extend(item.children)
    done: dict[int, MemoryNode] = {}
    for item in reversed(order):
        children = tuple(done[id(child)] for child in item.children)
        done[id(item)] = replace(item.node, children=children)
    return done[id(root)]


class _TreeReader:
    def __init__(self, answer: Answer, *, bare_headings: bool) -> None:
        self.answer = answer
        self.bare_headings = bare_headings
        self.aliases = False
        self.blocks: list[_Block] = []
        self.warnings: list[str] = []

    def warn(self, line: Line, text: str) -> None:
        self.warnings.append(f"line {line.number}: {text}")

    def block(self) -> _Block:
        """The block being read; an excerpt may begin inside one."""
        if not self.blocks:
            self.blocks.append(_Block())
        return self.blocks[-1]

    def read(self) -> None:
        lines = self.answer.lines
        for index, line in enumerate(lines):
            following = lines[index + 1].text if index + 1 < len(lines) else ""
            text = line.text.lstrip(" \t")
            if not text:
                # An empty line ends a block, except between two parts of an excerpt.
                self.block().closed = bool(self.block().spaces or self.block().region)
            elif not (self.heading(text) or self.node(line) or self.bare(line, following)):
                raise self.answer.fail(line, "not a line of info mtree")

    def heading(self, text: str) -> bool:
        if text.startswith("address-space: "):
            name = text.removeprefix("address-space: ")
            last = self.blocks[-1] if self.blocks else None
            # Since 7.0 the names of one tree follow each other (commit 7bdbf99aa2).
            if last is not None and last.spaces and not last.roots and not last.closed:
                last.spaces.append(name)
            else:
                self.blocks.append(_Block(spaces=[name]))
        elif text.startswith("memory-region: "):
            self.blocks.append(_Block(region=text.removeprefix("memory-region: ")))
        else:
            return False
        return True

    def bare(self, line: Line, following: str) -> bool:
        """Read a heading of QEMU before 2.6: a name alone, ``aliases`` before the targets."""
        if _ONLY_MARKS.fullmatch(line.text.strip(" \t")):
            # The mark of a hidden disabled region which is the last of its block.
            self.warn(line, "overflow of a region that is not shown")
            return True
        if not self.bare_headings or line.text[0] in " \t":
            return False
        if line.text == "aliases":
            self.aliases = True
        elif read_head(following) is None:
            return False
        elif self.aliases:
            self.blocks.append(_Block(region=line.text))
        else:
            self.blocks.append(_Block(spaces=[line.text]))
        return True

    def node(self, line: Line) -> bool:
        found = read_node(line.text)
        if found is None:
            return False
        indent, node = found
        if node.kind is Kind.UNKNOWN and node.word not in FLAGS | {""}:
            self.warn(line, f"unknown type word {node.word!r}")
        if node.overflow:
            self.warn(line, "overflow")
        for word in node.trailing:
            self.warn(line, f"unknown word {word!r} behind the line")
        self.attach(indent, node)
        return True

    def attach(self, indent: int, node: MemoryNode) -> None:
        """Hang *node* below the last line that is indented less.

        Indentation may jump: children of a hidden disabled region keep their depth. They
        are then found below a sibling of their parent if one precedes them; only ``-D``
        shows the true parent.
        """
        block, item = self.block(), _Growing(indent, node)
        while block.open and block.open[-1].indent >= indent:
            block.open.pop()
        (block.open[-1].children if block.open else block.roots).append(item)
        block.open.append(item)


def read_tree(answer: Answer, *, bare_headings: bool) -> tuple[MemoryTree, tuple[str, ...]]:
    """Return the tree and the warnings.

    :param bare_headings: accept a name alone as a heading (QEMU before 2.6).
    :raise ParseError: a line follows no rule of the form.
    """
    reader = _TreeReader(answer, bare_headings=bare_headings)
    reader.read()
    blocks = tuple(
        TreeBlock(tuple(block.spaces), block.region, tuple(map(_grown, block.roots)))
        for block in reader.blocks
    )
    return MemoryTree(blocks), tuple(reader.warnings)

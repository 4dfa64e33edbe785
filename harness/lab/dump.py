"""What one machine answers to every form of ``info mtree``, taken at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from harness.machine.machine import Machine
from harness.model.memory_map import MemoryMap
from harness.model.memory_tree import MemoryTree
from harness.parse.mtree import parse_memory_map, parse_memory_tree

FLAT = "info mtree -f -o"
TREE = "info mtree -o"
WHOLE_TREE = "info mtree -o -D"


@dataclass(frozen=True)
class Dump:
    """The texts, line ends made plain; the parsed forms follow from them."""

    name: str
    """Of the machine, for messages."""
    flat: str
    tree: str
    whole_tree: str
    """With disabled regions."""

    @cached_property
    def map(self) -> MemoryMap:
        """The flat form."""
        return parse_memory_map(self.flat)

    @cached_property
    def shown(self) -> MemoryTree:
        """The tree without disabled regions."""
        return parse_memory_tree(self.tree)

    @cached_property
    def whole(self) -> MemoryTree:
        """The tree with disabled regions."""
        return parse_memory_tree(self.whole_tree)

    def __str__(self) -> str:
        return self.name


def read_dump(machine: Machine) -> Dump:
    """Ask *machine* with its vCPUs stopped; the texts are kept in ``qmp.jsonl``."""
    with machine.stopped():
        flat, tree, whole = (machine.qmp.hmp(line) for line in (FLAT, TREE, WHOLE_TREE))
    return Dump(machine.spec.name, flat, tree, whole)

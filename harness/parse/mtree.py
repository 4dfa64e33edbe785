"""Read what the monitor command ``info mtree`` prints, in every dialect since QEMU 1.0.

The text is the only interface there is: no QMP command tells the rendered ranges, and
neither the options nor the text are declared stable. The dialect is found from the text,
never from a version, because distributions carry patches back. A line that follows no rule
is an error, except before the first line that does; type words and marks that are not known
are kept as data and named in `MtreeDump.warnings`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import pairwise

from harness.errors import ParseError
from harness.model.dispatch import Dispatch
from harness.model.memory_map import MemoryMap
from harness.model.memory_tree import MemoryTree
from harness.parse.mtree_flat import read_flat
from harness.parse.mtree_line import FLAGS, Head, read_head
from harness.parse.mtree_text import Answer, OptionRefused, find_answers
from harness.parse.mtree_tree import read_tree

__all__ = [
    "Dialect",
    "MtreeDump",
    "OptionRefused",
    "parse_memory_map",
    "parse_memory_tree",
    "parse_mtree",
    "parse_mtree_session",
]


class Dialect(enum.Enum):
    """Which QEMU prints such a text."""

    TREE_PLAIN = "tree, no types (QEMU 1.0)"
    TREE_FLAGS = "tree, access flags for types (QEMU 1.1 to 2.8)"
    TREE = "tree (QEMU 2.9 and later)"
    FLAT_SPACES = "flat, one block per address space (QEMU 2.9 and 2.10)"
    FLAT = "flat (QEMU 2.11 and later)"

    @property
    def is_flat(self) -> bool:
        """Say whether it is a form of ``info mtree -f``."""
        return self in (Dialect.FLAT, Dialect.FLAT_SPACES)


@dataclass(frozen=True, slots=True)
class MtreeDump:
    """One answer of ``info mtree``: ``map`` of the flat form, ``tree`` of the tree form."""

    dialect: Dialect
    map: MemoryMap | None = None
    tree: MemoryTree | None = None
    dispatches: tuple[Dispatch | None, ...] = ()
    """Of the flat form, one per view of ``map``; None where ``-d`` was not given."""
    warnings: tuple[str, ...] = ()
    """What was read but not understood, each with its line."""


def _rows_look_flat(answer: Answer, heads: list[Head]) -> bool:
    """Guess the form of an excerpt that has no heading."""
    if answer.options is not None:
        return "f" in answer.options
    one_level = len({head.indent for head in heads}) == 1
    in_order = all(one.last < two.start for one, two in pairwise(heads))
    of_tree = any(head.overflow or head.body.startswith("alias ") for head in heads)
    return one_level and in_order and not of_tree and "[disabled]" not in heads[0].body


def _dialect(answer: Answer) -> tuple[Dialect, tuple[str, ...]]:
    """Return the dialect, and a warning if it is a guess."""
    heads = [head for line in answer.lines if (head := read_head(line.text)) is not None]
    if answer.has_flat_heading:
        if answer.has_tree_heading:
            raise answer.fail(answer.lines[0], "both forms of info mtree in one answer")
        old = any("address-space (flat view): " in line.text for line in answer.lines)
        return Dialect.FLAT_SPACES if old else Dialect.FLAT, ()
    if any(head.word is None for head in heads):
        return Dialect.TREE_PLAIN, ()
    if any(head.word in FLAGS for head in heads):
        return Dialect.TREE_FLAGS, ()
    if answer.has_tree_heading:
        return Dialect.TREE, ()
    guess = Dialect.FLAT if _rows_look_flat(answer, heads) else Dialect.TREE
    return guess, (f"no heading: taken for the {'flat' if guess.is_flat else 'tree'} form",)


def _read(answer: Answer) -> MtreeDump:
    dialect, guessed = _dialect(answer)
    if dialect.is_flat:
        flat, dispatches, warnings = read_flat(answer)
        return MtreeDump(dialect, map=flat, dispatches=dispatches, warnings=guessed + warnings)
    old = dialect is not Dialect.TREE and not answer.has_tree_heading
    tree, warnings = read_tree(answer, bare_headings=old)
    return MtreeDump(dialect, tree=tree, warnings=guessed + warnings)


def parse_mtree_session(text: str, *, where: str = "info mtree") -> tuple[MtreeDump, ...]:
    """Read every answer of ``info mtree`` in the record of a monitor session.

    :param where: what the text is, for errors.
    :raise ParseError: there is none, or one that follows no known form.
    :raise OptionRefused: QEMU refused an option.
    """
    return tuple(_read(answer) for answer in find_answers(text, where=where))


def parse_mtree(text: str, *, where: str = "info mtree") -> MtreeDump:
    """Read the one answer of ``info mtree`` in *text*.

    :param where: what the text is, for errors.
    :raise ParseError: there is none or more than one, or it follows no known form.
    :raise OptionRefused: QEMU refused an option.
    """
    dumps = parse_mtree_session(text, where=where)
    if len(dumps) > 1:
        raise ParseError(
            f"{len(dumps)} answers of 'info mtree' where one is expected",
            text="; ".join(dump.dialect.value for dump in dumps),
            where=where,
        )
    return dumps[0]


def parse_memory_map(text: str, *, where: str = "info mtree -f") -> MemoryMap:
    """Read the flat form.

    :raise ParseError: as `parse_mtree`, and for the tree form.
    """
    dump = parse_mtree(text, where=where)
    if dump.map is None:
        raise ParseError(
            "this is the tree form, which does not tell who answers; use 'info mtree -f'",
            text=text[:200],
            where=where,
        )
    return dump.map


def parse_memory_tree(text: str, *, where: str = "info mtree") -> MemoryTree:
    """Read the tree form.

    :raise ParseError: as `parse_mtree`, and for the flat form.
    """
    dump = parse_mtree(text, where=where)
    if dump.tree is None:
        raise ParseError(
            "this is the flat form, which has no tree; use 'info mtree' without -f",
            text=text[:200],
            where=where,
        )
    return dump.tree

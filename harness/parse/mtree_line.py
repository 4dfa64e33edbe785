"""The lines of ``info mtree`` that describe a region, read from both ends.

Names are free text and may hold anything but a line end, so the head of a line is matched
by its fixed pattern and the rest is taken off from the right: accelerator marks, owners,
``[disabled]``, offset. What is left is the name. Printed by QEMU ``mtree_print_mr()``,
``mtree_print_flatview()`` and ``mtree_print_mr_owner()`` in system/memory.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.model.address import AddressRange
from harness.model.memory_map import Kind, Owner, Region
from harness.model.memory_tree import Alias, MemoryNode

ADDRESS_END = 1 << 64
OVERFLOW = "[DETECTED OVERFLOW!]"
FLAGS = frozenset({"RW", "R-", "-W", "--"})

_ADDRESS = r"[0-9a-f]{16}"
_HEAD = re.compile(
    rf"(?P<before>(?:\[DETECTED OVERFLOW!\] )*)(?P<indent>[ \t]*)"
    rf"(?P<after>(?:\[DETECTED OVERFLOW!\] )*)"
    rf"(?P<start>{_ADDRESS})-(?P<last>{_ADDRESS}) "
    r"\(prio (?P<priority>-?[0-9]{1,10})(?:, (?P<nonvolatile>nv-)?(?P<word>[^ )]+))?\):"
    r"(?: (?P<body>.*))?"
)
_OWNER = re.compile(r"(?P<rest>.*) owner:\{(dev|obj) (id|path|type)=([^{}]*)\}")
_PARENT = re.compile(r"(?P<rest>.*) parent:\{(dev|obj) (id|path|type)=([^{}]*)\}")
_BEHIND_OWNER = re.compile(
    r"(?P<rest>.* (?:owner|parent):\{(?:dev|obj) (?:id|path|type)=[^{}]*\})"
    r"(?P<words>(?: [^ ]+)*)"
)
_BEHIND_OFFSET = re.compile(rf"(?P<rest>.* @{_ADDRESS}(?: orphan)?)(?P<words>(?: [^ ]+)*)")
_MARK = r"(?:KVM|(?:[a-z]+:)*kvm(?::[a-z]+)*)"
_MARKS = re.compile(rf"(?P<rest>.*?)(?P<words>(?: {_MARK})+)")
_KNOWN_MARK = re.compile(_MARK)
_OFFSET = re.compile(rf"(?P<rest>.*) @(?P<offset>{_ADDRESS})")
_ALIAS = re.compile(
    rf"alias (?P<name>.*?) @(?P<target>.*) (?P<start>{_ADDRESS})-(?P<last>{_ADDRESS})"
)


@dataclass(frozen=True, slots=True)
class Head:
    """The fixed part of a line, and the rest of it as text."""

    overflow: int
    indent: int
    start: int
    last: int
    priority: int
    nonvolatile: bool
    word: str | None
    """Type word or access flags; None in QEMU 1.0, which prints neither."""
    body: str

    @property
    def kind(self) -> Kind:
        """The type word as a `Kind`; UNKNOWN for flags, no word, or a word not known."""
        try:
            return Kind(self.word)
        except ValueError:
            return Kind.UNKNOWN

    @property
    def unknown_word(self) -> str:
        """The word to keep beside `Kind.UNKNOWN`."""
        return (self.word or "") if self.kind is Kind.UNKNOWN else ""


@dataclass(frozen=True, slots=True)
class _Owners:
    owner: Owner | None
    parent: Owner | None
    orphan: bool


def read_head(line: str) -> Head | None:
    """Return the fixed part of a region line, or None if it is not one."""
    match = _HEAD.fullmatch(line)
    if match is None:
        return None
    return Head(
        overflow=(match["before"] + match["after"]).count(OVERFLOW),
        indent=len(match["indent"].expandtabs()),
        start=int(match["start"], 16),
        last=int(match["last"], 16),
        priority=int(match["priority"]),
        nonvolatile=match["nonvolatile"] is not None,
        word=match["word"],
        body=match["body"] or "",
    )


def _wrapped(start: int, last: int) -> AddressRange:
    """Return the range; one that wraps at the last address ends above it instead."""
    return AddressRange.of(start, (last if last >= start else last + ADDRESS_END) + 1)


def _take_owners(text: str) -> tuple[str, _Owners]:
    owner = parent = None
    if match := _PARENT.fullmatch(text):
        text, parent = match["rest"], Owner(match[2], match[3], match[4])
    if match := _OWNER.fullmatch(text):
        text, owner = match["rest"], Owner(match[2], match[3], match[4])
    orphan = owner is None and parent is None and text.endswith(" orphan")
    return text.removesuffix(" orphan") if orphan else text, _Owners(owner, parent, orphan)


def _take_marks(text: str) -> tuple[str, tuple[str, ...]]:
    """Split off the words behind an owner or offset; without either, known marks only."""
    for pattern in (_BEHIND_OWNER, _BEHIND_OFFSET, _MARKS):
        if match := pattern.fullmatch(text):
            return match["rest"], tuple(match["words"].split(" ")[1:])
    return text, ()


def read_region(line: str) -> Region | None:
    """Return the row of a flat view that *line* shows, or None if it shows none."""
    head = read_head(line)
    if head is None or head.word is None or head.overflow or head.last < head.start:
        return None
    body, marks = _take_marks(" " + head.body)
    body, owners = _take_owners(body)
    offset = 0
    if match := _OFFSET.fullmatch(body):
        body, offset = match["rest"], int(match["offset"], 16)
    return Region(
        range=AddressRange.of(head.start, head.last + 1),
        kind=head.kind,
        name=body[1:],
        offset=offset,
        priority=head.priority,
        nonvolatile=head.nonvolatile,
        owner=owners.owner,
        parent=owners.parent,
        orphan=owners.orphan,
        accelerators=marks,
        word=head.unknown_word,
    )


def read_node(line: str) -> tuple[int, MemoryNode] | None:
    """Return indentation and node (without children) of a line of the tree, or None."""
    head = read_head(line)
    if head is None:
        return None
    body, trailing = " " + head.body, ()
    if match := _BEHIND_OWNER.fullmatch(body):
        body, trailing = match["rest"], tuple(match["words"].split(" ")[1:])
    body, owners = _take_owners(body)
    disabled = body.endswith(" [disabled]")
    name = body.removesuffix(" [disabled]")[1:]
    alias = None
    if match := _ALIAS.fullmatch(name):
        name = match["name"]
        shown = _wrapped(int(match["start"], 16), int(match["last"], 16))
        alias = Alias(match["target"], shown)
    node = MemoryNode(
        range=_wrapped(head.start, head.last),
        kind=head.kind,
        name=name,
        priority=head.priority,
        nonvolatile=head.nonvolatile,
        alias=alias,
        disabled=disabled,
        overflow=head.overflow,
        owner=owners.owner,
        parent=owners.parent,
        orphan=owners.orphan,
        word=head.unknown_word,
        trailing=trailing,
    )
    return head.indent, node


def is_known_mark(word: str) -> bool:
    """Say whether *word* is an accelerator mark some QEMU prints (``KVM``, ``kvm:tcg``)."""
    return _KNOWN_MARK.fullmatch(word) is not None

"""The flat form: ``info mtree -f`` of QEMU 2.9 and later, with ``-o`` and ``-d``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from harness.model.dispatch import Dispatch, PhysicalSection
from harness.model.memory_map import AddressSpace, FlatView, Kind, MemoryMap, Region
from harness.parse.mtree_line import is_known_mark, read_region
from harness.parse.mtree_text import Answer, Line

NO_ROOT = "(none)"
NO_RENDERED = "No rendered FlatView"

_SPACE = re.compile(r'AS "(?P<name>.*?)", root: (?P<root>.*?)(?:, alias (?P<alias>.*))?')
_SECTION = re.compile(
    r"#(?P<index>[0-9]{1,10}) +@(?P<start>[0-9a-f]{16})\.\.(?P<last>[0-9a-f]{16}) +"
    r"(?P<name>.*?)(?P<labels>(?: \[(?:unassigned|not dirty|ROM|watch|ROOT|MRU|iommu)\])*)"
    r"(?: alias=(?P<alias>.*))?"
)
_NODE = re.compile(
    r"Nodes \([0-9]+ bits per level, [0-9]+ levels\) ptr=\[[0-9]+\] skip=[0-9]+"
    r"|\[[0-9]+\]"
    r"|[0-9]+(?:\.\.[0-9]+)? +skip=[0-9]+ +ptr=(?:\[[0-9]+\]|#[0-9]+|NIL)"
)


@dataclass(slots=True)
class _View:
    spaces: list[AddressSpace] = field(default_factory=list)
    root: str | None = None
    rooted: bool = False
    rows: list[Region] = field(default_factory=list)
    empty: bool = False
    sections: list[PhysicalSection] | None = None


class _FlatReader:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.views: list[_View] = []
        self.warnings: list[str] = []

    def warn(self, line: Line, text: str) -> None:
        self.warnings.append(f"line {line.number}: {text}")

    def view(self) -> _View:
        """The view being read; an excerpt may begin inside one."""
        if not self.views:
            self.views.append(_View())
        return self.views[-1]

    def read(self) -> None:
        for line in self.answer.lines:
            text = line.text.lstrip(" \t")
            if not text:
                continue
            done = self.heading(line, text) or self.dispatch(line, text) or self.row(line)
            if not done:
                raise self.answer.fail(line, "not a line of info mtree -f")

    def heading(self, line: Line, text: str) -> bool:
        if re.fullmatch(r"FlatView #[0-9]+", text):
            self.views.append(_View())
        elif text.startswith("address-space (flat view): "):
            name = text.removeprefix("address-space (flat view): ")
            self.views.append(_View(spaces=[AddressSpace(name)], rooted=True))
        elif match := _SPACE.fullmatch(text):
            view = self.view()
            if view.rooted or view.rows or view.empty:
                raise self.answer.fail(line, "an address space behind the root of its view")
            view.spaces.append(AddressSpace(match["name"], match["root"], match["alias"]))
        elif text.startswith("Root memory region: "):
            view = self.view()
            if view.rooted or view.rows or view.empty:
                raise self.answer.fail(line, "a second root in one view")
            root = text.removeprefix("Root memory region: ")
            view.root, view.rooted = (None if root == NO_ROOT else root), True
        elif text == NO_RENDERED or text.startswith(NO_RENDERED + " for address space '"):
            if self.view().rows:
                raise self.answer.fail(line, "a view that has rows and has none")
            self.view().empty = True
        else:
            return False
        return True

    def dispatch(self, line: Line, text: str) -> bool:
        if text == "Dispatch":
            self.view().sections = []
            return True
        sections = self.view().sections
        if sections is None:
            return False
        if text == "Physical sections" or _NODE.fullmatch(text):
            return True
        match = _SECTION.fullmatch(text)
        if match is None:
            raise self.answer.fail(line, "not a line of a dispatch tree")
        sections.append(
            PhysicalSection(
                index=int(match["index"]),
                start=int(match["start"], 16),
                last=int(match["last"], 16),
                name=None if match["name"] == "(noname)" else match["name"],
                labels=tuple(re.findall(r"\[([^]]*)\]", match["labels"])),
                alias=match["alias"],
            )
        )
        return True

    def row(self, line: Line) -> bool:
        row = read_region(line.text)
        if row is None:
            return False
        view = self.view()
        if view.empty:
            raise self.answer.fail(line, "a row in a view that is not rendered")
        if row.kind is Kind.UNKNOWN:
            self.warn(line, f"unknown type word {row.word!r}")
        for mark in row.accelerators:
            if not is_known_mark(mark):
                self.warn(line, f"unknown word {mark!r} behind the row")
        if view.rows and row.range.start < view.rows[-1].range.end:
            self.warn(line, "the row does not lie above the one before it")
        view.rows.append(row)
        return True


def read_flat(
    answer: Answer,
) -> tuple[MemoryMap, tuple[Dispatch | None, ...], tuple[str, ...]]:
    """Return the map, the dispatch tree of each view, and the warnings.

    :raise ParseError: a line follows no rule of the form.
    """
    reader = _FlatReader(answer)
    reader.read()
    views = tuple(
        FlatView(tuple(view.spaces), view.root, tuple(view.rows)) for view in reader.views
    )
    dispatches = tuple(
        None if view.sections is None else Dispatch(tuple(view.sections)) for view in reader.views
    )
    return MemoryMap(views), dispatches, tuple(reader.warnings)

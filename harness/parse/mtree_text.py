"""Find the answers of ``info mtree`` in a text: prompts, echoes and noise around them.

A text may come from QMP (nothing around), from a monitor session (``(qemu)`` prompts, the
command echoed) or from a mail (indented, without headings).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.errors import ParseError
from harness.parse.mtree_line import FLAGS, read_head

_PROMPT = re.compile(r"[ \t]*\(qemu\)(?P<echo>.*)")
_COMMAND = re.compile(r"info mtree(?P<options>(?: +-[A-Za-z]+)*) *")
_HEADING = re.compile(
    r'[ \t]*(?:FlatView #[0-9]+$| ?AS ".*", root: |Root memory region: '
    r"|address-space \(flat view\): |address-space: |memory-region: )"
)
_FLAT_HEADING = re.compile(r'[ \t]*(?:FlatView #|AS "|Root memory region: |address-space \(flat)')
_REFUSED = re.compile(r"mtree: unsupported option -(?P<option>.)")
_LIKE_A_ROW = re.compile(r"[ \t]*[0-9a-fA-F]{8,}-[0-9a-fA-F]{8,}[ :]")
_PLATFORM = re.compile(r".*\): VFIO .+ region [0-9]+")
"""Names that end with a line end (``vfio_populate_device()`` in hw/vfio/platform.c)."""
_REST_OF_ROW = re.compile(
    r"(?:(?: mmaps\[[0-9]+\]| @[0-9a-f]{16}| \[disabled\]| (?:owner|parent):\{| orphan| KVM).*)?"
)
_GDB = re.compile(r"[ \t]*[0-9a-f]{16}-[0-9a-f]{16} .*\(@ 0x[0-9a-f]+\)[ \t]*")


class OptionRefused(ParseError):
    """The QEMU at hand does not know an option of ``info mtree`` and said so.

    QEMU returns the refusal as the text of the answer, not as an error (``-f`` exists since
    2.9, ``-d`` since 2.11, ``-o`` since 3.0, ``-D`` since 5.1). Ask again without it.

    :param option: the letter.
    """

    def __init__(self, option: str, *, text: str, where: str) -> None:
        super().__init__(
            f"this QEMU does not know the option -{option} of info mtree", text=text, where=where
        )
        self.option = option
        self.hint = f"ask again without -{option}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the text, without its line end."""

    number: int
    """From 1."""
    text: str


@dataclass(slots=True)
class Answer:
    """What one command printed. ``lines`` begins at the first line that means something."""

    where: str
    options: str | None = None
    """Options echoed behind ``info mtree`` (`` -f -o``); None if there was no echo."""
    lines: list[Line] = field(default_factory=list)

    def fail(self, line: Line, summary: str) -> ParseError:
        """Return the error for *line*; the caller raises it."""
        return ParseError(summary, text=line.text, where=f"{self.where}, line {line.number}")

    @property
    def has_flat_heading(self) -> bool:
        """Say whether a heading of the flat form is in it."""
        return any(_FLAT_HEADING.match(line.text) for line in self.lines)

    @property
    def has_tree_heading(self) -> bool:
        """Say whether ``address-space:`` or ``memory-region:`` is in it."""
        return any(
            line.text.lstrip(" \t").startswith(("address-space: ", "memory-region: "))
            for line in self.lines
        )


def is_heading(text: str) -> bool:
    """Say whether *text* is a heading of any dialect but the oldest (bare names)."""
    return _HEADING.match(text) is not None


def _segments(text: str, where: str) -> Iterator[Answer]:
    """Cut at prompts; drop what other commands printed."""
    answer: Answer | None = Answer(where)
    for number, raw in enumerate(text.split("\n"), 1):
        line = Line(number, raw.rstrip("\r"))
        prompt = _PROMPT.fullmatch(line.text)
        if prompt is None:
            if answer is not None:
                _append(answer.lines, line)
            continue
        if answer is not None:
            yield answer
        echo = prompt["echo"].strip()
        command = _COMMAND.search(echo)
        if command is not None:
            answer = Answer(where, command["options"])
        else:
            answer = None if echo else Answer(where)
    if answer is not None:
        yield answer


def _append(lines: list[Line], line: Line) -> None:
    """Append *line*, or join it to the row of a platform device whose name broke the line."""
    if lines and _PLATFORM.fullmatch(lines[-1].text) and _REST_OF_ROW.fullmatch(line.text):
        lines[-1] = Line(lines[-1].number, lines[-1].text + line.text)
    else:
        lines.append(line)


def _begin(answer: Answer) -> int | None:
    """Return the index of the first line that means something, None if there is none.

    :raise ParseError: the dialect of gdb, or a line that looks like a damaged row.
    :raise OptionRefused: QEMU refused the command.
    """
    for index, line in enumerate(answer.lines):
        if is_heading(line.text):
            return index
        head = read_head(line.text)
        if head is not None:
            # Up to 1.x the heading is a bare name: keep the line before the first row.
            old = head.word is None or head.word in FLAGS
            before = answer.lines[index - 1].text if index else ""
            return index - 1 if old and before and before[0] not in " \t" else index
        if _GDB.fullmatch(line.text):
            raise answer.fail(
                line,
                "this is the output of gdb's 'qemu mtree', not of the monitor; "
                "take it with 'info mtree -f -o'",
            )
        if _LIKE_A_ROW.match(line.text):
            raise answer.fail(line, "not a line of info mtree")
        if refused := _REFUSED.search(line.text):
            raise OptionRefused(
                refused["option"],
                text=line.text,
                where=f"{answer.where}, line {line.number}",
            )
    return None


def find_answers(text: str, *, where: str) -> tuple[Answer, ...]:
    """Return the answers of ``info mtree`` in *text*; at least one.

    :param where: what the text is, for errors.
    :raise ParseError: there is none, or what is there is not of the monitor.
    :raise OptionRefused: QEMU refused the command.
    """
    answers = []
    for answer in _segments(text, where):
        begin = _begin(answer)
        if begin is not None:
            answer.lines = answer.lines[begin:]
            answers.append(answer)
    if not answers:
        raise ParseError(
            "no output of 'info mtree' in the text",
            text="\n".join(text.split("\n")[:3]) or "(nothing)",
            where=where,
        )
    return tuple(answers)

"""What is said to the agent of an AP host: frames and batches of file operations. Pure.

``images/ap-agent/agent.c`` is at the other end and says what each kind means.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import ParseError

_HEAD = struct.Struct(">IIc")
_NUMBER = struct.Struct(">I")
LARGEST = 64 << 20
"""Bytes of a frame that are believed."""


class Kind(StrEnum):
    """What a frame is."""

    HELLO = "H"
    BATCH = "B"
    START = "X"
    INPUT = "I"
    END_OF_INPUT = "E"
    KILL = "K"
    ANSWER = "A"
    OUTPUT = "O"
    ERRORS = "R"
    STATUS = "S"
    FAILED = "F"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    channel: int
    kind: Kind
    content: bytes = b""

    def encoded(self) -> bytes:
        """Return it as it travels."""
        return _HEAD.pack(len(self.content), self.channel, self.kind.encode()) + self.content


class FrameReader:
    """Takes bytes as they come and gives frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take more bytes; return the frames that are whole now.

        :raise ParseError: what comes is not from an agent.
        """
        self._buffer += data
        found = []
        while len(self._buffer) >= _HEAD.size:
            size, channel, kind = _HEAD.unpack_from(self._buffer)
            try:
                known = Kind(kind.decode("ascii"))
            except ValueError:
                known = None
            if known is None or size > LARGEST:
                raise ParseError(
                    "no frame of an agent", text=repr(bytes(self._buffer[:80])), where="agent"
                )
            if len(self._buffer) < _HEAD.size + size:
                break
            content = bytes(self._buffer[_HEAD.size : _HEAD.size + size])
            del self._buffer[: _HEAD.size + size]
            found.append(Frame(channel, known, content))
        return found


@dataclass(frozen=True, slots=True)
class FileRequest:
    """One operation of a batch.

    :param kind: ``r`` read, ``w`` write, ``l`` read a link, ``d`` list a directory, ``s`` size,
        ``k`` read the kernel log from a sequence number on.
    """

    kind: str
    path: str
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """What came of it.

    :param errno: number, 0 if it was done.
    """

    errno: int
    data: bytes = b""

    @property
    def error(self) -> str:
        """Name of the errno (``EBUSY``), empty if it was done."""
        return errno.errorcode.get(self.errno, f"errno {self.errno}") if self.errno else ""

    @property
    def reason(self) -> str:
        """The errno in words (``Device or resource busy``)."""
        return os.strerror(self.errno) if self.errno else ""

    @property
    def text(self) -> str:
        """What was read, as text."""
        return self.data.decode(errors="replace")


def encode_batch(requests: Iterable[FileRequest]) -> bytes:
    """Return a batch as it travels."""
    parts = []
    for one in requests:
        path = os.fsencode(one.path)
        parts += [one.kind.encode("ascii"), _NUMBER.pack(len(path)), path]
        parts += [_NUMBER.pack(len(one.data)), one.data]
    return b"".join(parts)


def decode_answers(content: bytes, count: int) -> list[FileAnswer]:
    """Return the answers to a batch of *count*.

    :raise ParseError: there are fewer or more, or they are cut short.
    """
    answers, at = [], 0
    while at + 8 <= len(content):
        number, size = struct.unpack_from(">II", content, at)
        data = content[at + 8 : at + 8 + size]
        if len(data) != size:
            break
        answers.append(FileAnswer(number, data))
        at += 8 + size
    if len(answers) != count or at != len(content):
        raise ParseError(
            f"{len(answers)} answers to {count} requests", text=repr(content[:200]), where="agent"
        )
    return answers


def encode_words(words: Sequence[str]) -> bytes:
    """Return the words of a command as they travel."""
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def decode_number(content: bytes) -> int:
    """Return the one number of a frame.

    :raise ParseError: it holds something else.
    """
    if len(content) != _NUMBER.size:
        raise ParseError("no number", text=repr(content[:80]), where="agent")
    return int(_NUMBER.unpack(content)[0])


def exit_status(wait_status: int) -> int:
    """Return what `subprocess` would: the status, or minus the number of the signal."""
    return os.waitstatus_to_exitcode(wait_status)

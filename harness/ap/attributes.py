"""Attributes of sysfs on an AP host: what was read, and with which errno a write was refused.

A shell says "Device or resource busy" in the language of its user; the static helper
``ap-probe sysfs`` says ``EBUSY``. Requests can be sent many at a time, which makes random
sequences of thousands of operations affordable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import HostError
from harness.guest.transport import Conversation

AP_PROBE = "/usr/bin/ap-probe"
BATCH = 200
"""Requests under way at once: fewer than fill the pipes between here and there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the kernel said to one request."""

    error: str
    """Name of the errno (``EBUSY``), empty if it did what was asked."""
    text: str = ""
    """What was read, without the last line end."""


@dataclass(frozen=True, slots=True)
class Request:
    """One read or write."""

    path: str
    text: str | None = None
    """What is written, a line end is added as ``echo`` does; None reads."""

    def line(self) -> str:
        """Return it as the helper wants it."""
        return f"r {self.path}" if self.text is None else f"w {self.path} {self.text}"


class Attributes:
    """Reads and writes attributes over a conversation with ``ap-probe sysfs``."""

    def __init__(self, conversation: Conversation, *, where: str) -> None:
        self._conversation = conversation
        self._where = where

    def write(self, path: str, text: str, *, timeout: float = 60) -> str:
        """Write *text*; return the name of the errno, empty if the kernel accepted it."""
        return self.batch([Request(path, text)], timeout=timeout)[0].error

    def must_write(self, path: str, text: str) -> None:
        """Write *text* where a refusal means that the lab is wrong.

        :raise HostError: the kernel refused it.
        """
        if error := self.write(path, text):
            raise HostError(f"{self._where}: {error} when {text!r} was written to {path}")

    def try_read(self, path: str) -> Answer:
        """Read *path*; the answer has the errno if that was refused."""
        return self.batch([Request(path)])[0]

    def read(self, path: str) -> str:
        """Return the text of *path*, without its last line end.

        :raise HostError: it cannot be read.
        """
        return self._checked(path, self.try_read(path))

    def read_all(self, paths: Sequence[str]) -> list[Answer]:
        """Read many in one trip."""
        return self.batch([Request(path) for path in paths])

    def exists(self, path: str) -> bool:
        """Say whether *path* can be listed or read."""
        return self._ask(f"d {path}").error in ("", "ENOTDIR")

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a directory, sorted; empty if there is no such directory."""
        answer = self._ask(f"d {path}")
        if answer.error == "ENOENT":
            return ()
        return tuple(sorted(self._checked(path, answer).split()))

    def link(self, path: str) -> str:
        """Return where a link points, by its last name; empty if there is no such link."""
        answer = self._ask(f"l {path}")
        if answer.error == "ENOENT":
            return ""
        return self._checked(path, answer).rpartition("/")[2]

    def links(self, paths: Sequence[str]) -> list[str]:
        """Return the last names of many links in one trip; empty where there is none."""
        answers = self._talk([f"l {path}" for path in paths], timeout=60)
        return [answer.text.rpartition("/")[2] for answer in answers]

    def batch(self, requests: Sequence[Request], *, timeout: float = 60) -> list[Answer]:
        """Make *requests* in order; each has an answer, whatever became of those before it.

        :param timeout: seconds for each answer.
        """
        return self._talk([request.line() for request in requests], timeout=timeout)

    def close(self) -> None:
        """End the conversation."""
        self._conversation.close()

    def _ask(self, line: str) -> Answer:
        return self._talk([line], timeout=60)[0]

    def _talk(self, lines: Sequence[str], *, timeout: float) -> list[Answer]:
        answers: list[Answer] = []
        for start in range(0, len(lines), BATCH):
            part = lines[start : start + BATCH]
            self._conversation.send("\n".join(part))
            answers += [parse_answer(self._conversation.receive(timeout=timeout)) for _ in part]
        return answers

    def _checked(self, path: str, answer: Answer) -> str:
        if answer.error:
            raise HostError(f"{self._where}: {answer.error} when {path} was read")
        return answer.text


def parse_answer(line: str) -> Answer:
    """Read one line of the helper: ``ok``, ``ok TEXT`` or the name of an errno."""
    word, _, text = line.partition(" ")
    if word == "ok":
        return Answer("", text.replace("\\n", "\n"))
    return Answer(word)

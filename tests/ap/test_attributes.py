"""Attributes over a conversation with the static helper, which is a dictionary here."""

from __future__ import annotations

import pytest

from harness.ap.attributes import BATCH, Answer, Attributes, Request, parse_answer
from harness.errors import HostError


class Helper:
    """Answers as ``ap-probe sysfs`` does."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.waiting: list[str] = []
        self.closed = False

    def send(self, line: str) -> None:
        lines = line.split("\n")
        self.asked += lines
        self.waiting += lines
        assert len(lines) <= BATCH

    def receive(self, *, timeout: float = 30) -> str:
        return self.answers.get(self.waiting.pop(0), "ENOENT")

    def close(self) -> None:
        self.closed = True


def attributes(**answers: str) -> tuple[Attributes, Helper]:
    helper = Helper({line.replace("_", " "): answer for line, answer in answers.items()})
    return Attributes(helper, where="host"), helper


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("ok", Answer("")),
        ("ok ", Answer("")),
        ("ok one two", Answer("", "one two")),
        ("ok 05.0004\\n05.00ab", Answer("", "05.0004\n05.00ab")),
        ("EADDRINUSE", Answer("EADDRINUSE")),
    ],
)
def test_lines_become_answers(line: str, answer: Answer) -> None:
    assert parse_answer(line) == answer


def test_a_refused_write_is_an_errno() -> None:
    files, helper = attributes()
    helper.answers["w /sys/bus/ap/apmask -5"] = "EBUSY"

    assert files.write("/sys/bus/ap/apmask", "-5") == "EBUSY"


def test_a_write_that_must_succeed_says_what_was_refused() -> None:
    files, helper = attributes()
    helper.answers["w /sys/bus/ap/scans 1"] = "EACCES"

    with pytest.raises(HostError, match="host: EACCES when '1' was written to /sys/bus/ap/scans"):
        files.must_write("/sys/bus/ap/scans", "1")


def test_a_file_that_is_not_there_is_told() -> None:
    files, _ = attributes()

    with pytest.raises(HostError, match="ENOENT when /gone was read"):
        files.read("/gone")


def test_many_requests_travel_in_parts_and_come_back_in_order() -> None:
    files, helper = attributes()
    helper.answers = {f"r /{number}": f"ok {number}" for number in range(3 * BATCH)}

    answers = files.read_all([f"/{number}" for number in range(3 * BATCH)])

    assert [answer.text for answer in answers] == [str(number) for number in range(3 * BATCH)]


def test_requests_are_lines_of_the_helper() -> None:
    assert Request("/a").line() == "r /a"
    assert Request("/a", "").line() == "w /a "
    assert Request("/a", "x  y").line() == "w /a x  y"


def test_links_are_their_last_names() -> None:
    files, helper = attributes()
    helper.answers = {"l /a": "ok ../../bus/ap/drivers/vfio_ap"}

    assert files.links(["/a", "/b"]) == ["vfio_ap", ""]
    assert (files.link("/a"), files.link("/b")) == ("vfio_ap", "")


def test_names_are_sorted_and_none_where_there_is_no_directory() -> None:
    files, helper = attributes()
    helper.answers = {"d /a": "ok card05 05.0004"}

    assert files.names("/a") == ("05.0004", "card05")
    assert files.names("/b") == ()


def test_a_file_exists_too() -> None:
    files, helper = attributes()
    helper.answers = {"d /file": "ENOTDIR", "d /directory": "ok"}

    assert [files.exists(path) for path in ("/file", "/directory", "/gone")] == [True, True, False]


def test_closing_ends_the_conversation() -> None:
    files, helper = attributes()
    files.close()

    assert helper.closed

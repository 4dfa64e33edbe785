"""The text of ``info mtree``: what every line of it looks like."""

import re

import pytest

from harness.host.host import Host
from harness.lab.dump import FLAT, Dump
from harness.machine.machine import Machine
from harness.model.version import QemuVersion
from harness.testing import must_fail

both = pytest.mark.parametrize("dump", ["paused", "resident"], indirect=True)

HEADING = re.compile(
    r"FlatView #\d+|(address-space|memory-region): .+"
    r'| AS ".*", root: .+| Root memory region: .+|  No rendered FlatView'
)
ROW = re.compile(r"(?:\[DETECTED OVERFLOW!\] )* *[0-9a-f]{16}-[0-9a-f]{16} \(prio -?\d+, \S+\): ")
TYPE = re.compile(r"^.* \(prio -?\d+, (?:nv-)?([^)]+)\): ", re.M)


def check_lines(text: str) -> None:
    """Each line that is no heading begins with a range of two 16-digit numbers."""
    strange = [
        line
        for line in text.splitlines()
        if line and not HEADING.fullmatch(line) and not ROW.match(line)
    ]
    assert not strange, strange[:5]


@both
@pytest.mark.rule("MT-01")
def test_each_range_is_two_numbers_of_16_digits(dump: Dump) -> None:
    """Each range prints as two 16-digit lower-case hex numbers joined by a dash."""
    check_lines(dump.flat + dump.whole_tree)


@pytest.mark.negative_control("MT-01")
def test_upper_case_numbers_are_noticed(paused_dump: Dump) -> None:
    """A text whose numbers are upper case fails the check."""
    upper = re.sub(r"[0-9a-f]{16}", lambda number: number[0].upper(), paused_dump.flat)

    with must_fail():
        check_lines(upper)


def type_words(version: QemuVersion) -> set[str]:
    """Return the type words that a QEMU of this version may print."""
    # Feature probe is impossible: a word appears only where such a region exists.
    return {"ramd", "romd", "rom", "ram", "i/o"} | ({"container"} if version.has(11, 0) else set())


def check_types(text: str, version: QemuVersion) -> None:
    """No type word but those that exist."""
    found = set(TYPE.findall(text))
    assert found and found <= type_words(version), sorted(found)


@both
@pytest.mark.rule("MT-03")
def test_type_words_are_those_known(dump: Dump, host: Host) -> None:
    """Type words are ramd, romd, rom, ram and i/o, from QEMU 11.0 on container too."""
    check_types(dump.flat + dump.whole_tree, host.qemu.version)


@pytest.mark.negative_control("MT-03")
def test_an_unknown_type_word_is_noticed(paused_dump: Dump, host: Host) -> None:
    """A text with the word rsvd fails the check."""
    with must_fail():
        check_types(paused_dump.flat.replace(", i/o)", ", rsvd)"), host.qemu.version)


def check_refused(answer: str, option: str) -> None:
    """The answer says that the option is not supported, as a normal string."""
    assert answer.startswith(f"mtree: unsupported option -{option}"), answer[:100]


@pytest.mark.rule("MT-06")
def test_an_unknown_option_is_refused_in_the_text(paused: Machine) -> None:
    """An option that info mtree does not have gives a text that says so, not a QMP error."""
    check_refused(paused.qmp.hmp("info mtree -Z"), "Z")


@pytest.mark.negative_control("MT-06")
def test_a_known_option_is_not_refused(paused: Machine) -> None:
    """The answer to an option that exists fails the check."""
    with must_fail():
        check_refused(paused.qmp.hmp(FLAT), "f")


def check_line_ends(text: str) -> None:
    """Each line ends with CR LF."""
    assert text and text.count("\r\n") == text.count("\n") == text.count("\r"), repr(text[:80])


def unchanged(machine: Machine, line: str) -> str:
    """Return what the monitor answers, its line ends untouched."""
    return str(machine.qmp.execute("human-monitor-command", {"command-line": line}))


@pytest.mark.rule("MT-07")
def test_lines_end_with_cr_lf(paused: Machine) -> None:
    """Text from human-monitor-command has CR LF line ends."""
    check_line_ends(unchanged(paused, FLAT))


@pytest.mark.negative_control("MT-07")
def test_plain_line_ends_are_noticed(paused: Machine) -> None:
    """The same text with plain line ends fails the check."""
    with must_fail():
        check_line_ends(paused.qmp.hmp(FLAT))


def check_marks_come_last(text: str) -> None:
    """Behind the accelerator mark stands nothing but another mark."""
    marked = re.findall(r"^.*\): .*\bowner:.* KVM.*$|^.*\): .* KVM .*\bowner:.*$", text, re.M)
    assert marked, "no row has an owner and a mark"
    assert all(re.search(r" owner:\{[^{}]*\}.*?(?: KVM)+$", line) for line in marked), marked[:3]


@both
@pytest.mark.rule("MT-14")
def test_owner_comes_before_the_mark(dump: Dump, kvm: None) -> None:
    """The owner of a row is printed before the accelerator mark."""
    check_marks_come_last(dump.flat)


@pytest.mark.negative_control("MT-14")
def test_an_owner_behind_the_mark_is_noticed(paused_dump: Dump, kvm: None) -> None:
    """A text whose marks stand before the owner fails the check."""
    swapped = re.sub(r"( owner:\{[^{}]*\})( KVM)", r"\2\1", paused_dump.flat)

    with must_fail():
        check_marks_come_last(swapped)


def check_owned_or_orphan(text: str) -> None:
    """Each row says either who made it or that nobody did."""
    rows = [line for line in text.splitlines() if ROW.match(line)]
    strange = [
        line
        for line in rows
        if bool(re.search(r" (?:owner|parent):\{", line)) == bool(re.search(r" orphan\b", line))
    ]
    assert rows and not strange, strange[:3]


@both
@pytest.mark.rule("MT-27")
def test_orphan_stands_for_owner_and_parent(dump: Dump) -> None:
    """With -o each region has an owner or a parent, or else the word orphan."""
    check_owned_or_orphan(dump.flat + dump.whole_tree)


@pytest.mark.negative_control("MT-27")
def test_a_region_of_nobody_is_noticed(paused: Machine) -> None:
    """The text without -o, where no row has an owner, fails the check."""
    with must_fail():
        check_owned_or_orphan(paused.qmp.hmp("info mtree -f"))

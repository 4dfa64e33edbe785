"""The monitor of the QEMU under test: versions, errors, traces."""

import fnmatch
import re
from collections.abc import Collection

import pytest

from harness.errors import QmpFailed
from harness.host.host import Host
from harness.lab.accesses import READ_EVENTS
from harness.machine.command import Device, MachineSpec
from harness.machine.machine import Machine
from harness.model.version import QemuVersion
from harness.suite_fixtures import Refusal
from harness.testing import check_said, must_fail

OPS_READ = "memory_region_ops_read"
IO_APIC = "xp /1wx 0xfec00000"
"""Reads a register that QEMU emulates, without a guest (TRP-18)."""
STAMP = r"\d+@\d+\.\d{6}:|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z "
"""Thread and seconds, or the date: see rule ENV-03."""
LINE = re.compile(rf"(?:{STAMP})[a-z]\w* .*")


def trace_text(machine: Machine) -> str:
    """Return what the machine's trace file holds."""
    return machine.place.read(machine.sockets.trace).decode()


def check_traced(before: str, after: str) -> None:
    """A line of the event came to the file."""
    assert OPS_READ in after.removeprefix(before), after[-300:]


@pytest.mark.rule("ENV-01")
def test_trace_lines_go_to_the_log_file(paused: Machine) -> None:
    """The trace backend is log: an event that is switched on writes lines to the file of -D."""
    before = trace_text(paused)

    with paused.tracing(OPS_READ):
        paused.qmp.hmp(IO_APIC)

    check_traced(before, trace_text(paused))


@pytest.mark.negative_control("ENV-01")
def test_an_event_that_is_off_is_noticed(paused: Machine) -> None:
    """The same access with the event off fails the check."""
    before = trace_text(paused)

    paused.qmp.hmp(IO_APIC)

    with must_fail():
        check_traced(before, trace_text(paused))


def said_to(machine: Machine, command: str, **arguments: str | bool) -> tuple[str, str]:
    """Return class and text of the error that a QMP command gives; empty if it gives none."""
    try:
        machine.qmp.execute(command, {key.replace("_", "-"): v for key, v in arguments.items()})
    except QmpFailed as error:
        return error.error_class, error.description
    return "", ""


def check_unknown_event(said: tuple[str, str], name: str) -> None:
    """The event was refused because nobody knows it."""
    assert said[1].startswith(f'unknown event "{name}"'), said


@pytest.mark.rule("ENV-02")
@pytest.mark.parametrize("ignore", [False, True])
def test_an_unknown_event_is_refused(paused: Machine, ignore: bool) -> None:
    """Switching an event that does not exist fails; ignore-unavailable does not help."""
    said = said_to(
        paused,
        "trace-event-set-state",
        name="no_such_event",
        enable=True,
        ignore_unavailable=ignore,
    )

    check_unknown_event(said, "no_such_event")


@pytest.mark.negative_control("ENV-02")
@pytest.mark.parametrize("name", [OPS_READ, "memory_region_ops_*", "no_such_event*"])
def test_known_events_and_globs_are_accepted(paused: Machine, name: str) -> None:
    """A name that exists and a glob, even one that matches nothing, fail the check."""
    said = said_to(paused, "trace-event-set-state", name=name, enable=False)

    with must_fail():
        check_unknown_event(said, name)


def check_stamped(text: str) -> None:
    """Each line has a time before the name of the event."""
    lines = text.splitlines()
    assert lines and all(LINE.fullmatch(line) for line in lines), lines[:3]


@pytest.fixture
def trace_of_a_read(paused: Machine) -> str:
    """What one read of an emulated register writes to the trace file."""
    before = trace_text(paused)
    with paused.tracing(OPS_READ):
        paused.qmp.hmp(IO_APIC)
    return trace_text(paused).removeprefix(before)


@pytest.mark.rule("ENV-03")
def test_trace_lines_are_stamped(trace_of_a_read: str) -> None:
    """With -msg timestamp=on each trace line begins with a time."""
    check_stamped(trace_of_a_read)


@pytest.mark.negative_control("ENV-03")
def test_lines_without_a_stamp_are_noticed(trace_of_a_read: str) -> None:
    """The same lines without their stamps fail the check."""
    with must_fail():
        check_stamped(re.sub(rf"^(?:{STAMP})", "", trace_of_a_read, flags=re.M))


def check_version(machine: Machine, version: QemuVersion) -> None:
    """QMP gives the three numbers of the version, and a package string beside them."""
    said = machine.qmp.execute("query-version")
    assert said["qemu"] == {
        "major": version.major,
        "minor": version.minor,
        "micro": version.micro,
    }, said
    assert isinstance(said["package"], str), said


@pytest.mark.rule("ENV-11")
def test_version_is_three_numbers(paused: Machine, host: Host) -> None:
    """query-version gives major, minor and micro apart from the package's text."""
    check_version(paused, host.qemu.version)


@pytest.mark.negative_control("ENV-11")
def test_another_version_is_noticed(paused: Machine) -> None:
    """A version that differs in one number fails the check."""
    with must_fail():
        check_version(paused, QemuVersion(2, 8, 0))


def check_error(said: tuple[str, str], error_class: str) -> None:
    """QMP refused, with this class."""
    assert said[0] == error_class, said


@pytest.mark.rule("ENV-14")
@pytest.mark.parametrize(
    ("error_class", "command", "arguments"),
    [
        ("GenericError", "device_add", {"driver": "no-such-device"}),
        ("DeviceNotFound", "device_del", {"id": "no-such-id"}),
    ],
    ids=["device_add", "device_del"],
)
def test_errors_after_the_start_have_a_class(
    paused: Machine, error_class: str, command: str, arguments: dict[str, str | bool]
) -> None:
    """A refusal over QMP is a GenericError, for an id that is not there DeviceNotFound."""
    check_error(said_to(paused, command, **arguments), error_class)


NO_MODEL = "'no-such-device' is not a valid device model name"


@pytest.mark.rule("ENV-14")
def test_errors_before_qmp_are_on_stderr(host: Host, refusal: Refusal) -> None:
    """What fails before QMP answers ends QEMU with status 1 and a text on stderr."""
    said = refusal(MachineSpec("refused", devices=(Device("no-such-device", "it"),)))

    check_said(said, NO_MODEL)


@pytest.mark.negative_control("ENV-14")
def test_an_error_of_another_class_is_noticed(paused: Machine) -> None:
    """An id that is not there is no GenericError; what is said over QMP is not on stderr."""
    with must_fail():
        check_error(said_to(paused, "device_del", id="no-such-id"), "GenericError")
    check_said(said_to(paused, "device_add", driver="no-such-device")[1], NO_MODEL)
    with must_fail():
        check_said(paused.stderr(), NO_MODEL)


EOI = ("vfio_intx_eoi", "vfio_pci_intx_eoi")
"""The name of one event: until 10.1, and from 10.2 on."""


def check_one_name(known: frozenset[str], version: QemuVersion) -> None:
    """Of the two names of the event there is the one of this version, alone."""
    assert known & set(EOI) == {EOI[version.has(10, 2)]}, known & set(EOI)


@pytest.mark.rule("INT-10", "ENV-04")
def test_names_of_events_follow_the_version(paused: Machine, host: Host) -> None:
    """vfio_intx_eoi became vfio_pci_intx_eoi in 10.2; the list of names tells."""
    check_one_name(paused.trace_events("vfio_*"), host.qemu.version)


@pytest.mark.negative_control("INT-10", "ENV-04")
def test_a_name_of_another_version_is_noticed(paused: Machine, host: Host) -> None:
    """The list of this version fails the check for the other side of 10.2."""
    other = QemuVersion(10, 1, 0) if host.qemu.version.has(10, 2) else QemuVersion(10, 2, 0)

    with must_fail():
        check_one_name(paused.trace_events("vfio_*"), other)


def serving_events(machine: Machine) -> frozenset[str]:
    """Return the events of memory regions and of vfio."""
    return machine.trace_events("memory_region_*") | machine.trace_events("vfio_*")


def check_known(known: frozenset[str], names: Collection[str]) -> None:
    """Each name, or each pattern, stands for an event that there is."""
    unknown = [name for name in names if not fnmatch.filter(known, name)]
    assert not unknown, unknown


@pytest.mark.rule("ENV-04")
def test_events_that_tell_who_served_a_read_exist(paused: Machine) -> None:
    """What the classification of accesses counts are events of this version."""
    check_known(serving_events(paused), READ_EVENTS)


@pytest.mark.negative_control("ENV-04")
def test_an_event_of_no_version_is_noticed(paused: Machine) -> None:
    """A name that no QEMU has fails the check."""
    with must_fail():
        check_known(serving_events(paused), [*READ_EVENTS, "vfio_region_peek"])

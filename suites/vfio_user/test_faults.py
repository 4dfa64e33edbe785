"""Servers that misbehave: QEMU says what is wrong, goes on or ends as documented.

What it does not survive is in ``finding_server_faults.py``; see docs/findings.
"""

import errno
from collections.abc import Callable, Iterator

import pytest

from harness.device import protocol
from harness.device.faults import (
    Act,
    When,
    altered,
    asks,
    closes,
    fails,
    faulty,
    garbage,
    late,
    silent,
    storm,
    trespass,
    with_descriptors,
)
from harness.device.protocol import Command, RequestFailed
from harness.device.server import SessionMaker
from harness.device.session import Session
from harness.lab.parts import Parts
from harness.shapes.misbehaving import Misbehaving, ending_with
from harness.shapes.observe import Build
from harness.testing import must_fail

ONES = 0xFFFF_FFFF
WORD = 0x1234_5678
ID = 0x5A5A_1234
READ = When(Command.REGION_READ, region=0)
ONCE = When(Command.REGION_READ, region=0, times=1)
MEMORY = 0x3000
"""A word of the machine's memory that nobody uses."""
NOWHERE = 0x4000_0000
STORM = 100_000
VECTOR_DATA = 1
VECTOR_ADDRESS = 0x2000

OpenMachine = Callable[[SessionMaker], Misbehaving]


@pytest.fixture
def qemu(device_parts: Parts) -> Build:
    """The build under test if it has vfio-user-pci, else one that has."""
    return device_parts.l0_qemu


@pytest.fixture
def machine_with(qemu: Build) -> Iterator[OpenMachine]:
    """Open a machine whose device has such a server; it is closed at the end."""
    opened: list[Misbehaving] = []

    def start(session: SessionMaker) -> Misbehaving:
        opened.append(Misbehaving(qemu, session))
        opened[-1].write(0, 0x10, WORD)
        return opened[-1]

    yield start
    for machine in opened:
        machine.close()


def check_reads_ones(machine: Misbehaving, message: str) -> None:
    """A read of the BAR gives ones, and QEMU says why."""
    found = machine.read(0, 0x10)
    assert found == ONES, f"read {found:#x}, not ones"
    machine.said(message)


def check_goes_on(machine: Misbehaving) -> None:
    """The other BAR and configuration space are read as ever."""
    machine.write(1, 0xF00, WORD)
    assert machine.read(1, 0xF00) == WORD
    assert machine.read_id() == ID
    assert machine.answers()


def check_is_cut_off(machine: Misbehaving) -> None:
    """The device is gone for the guest, QEMU is not: it answers, and ends when it is told."""
    found = machine.read(1, 0xF00)
    assert found == ONES, f"read {found:#x}: the device still answers"
    assert machine.answers()
    assert machine.quit() == 0, machine.stderr()


# -- while the machine runs -------------------------------------------------------------------


ANSWERED_BADLY = [
    pytest.param(fails(errno.EIO), "failed: Input/output error", id="error"),
    pytest.param(fails(errno.ENODEV), "failed: No such device", id="gone"),
]


@pytest.mark.parametrize(("act", "message"), ANSWERED_BADLY)
@pytest.mark.rule("PEER-01")
def test_error_of_the_server_is_ones_to_the_guest(
    machine_with: OpenMachine, act: Act, message: str
) -> None:
    """A read that the server fails gives ones, with its reason; the rest goes on."""
    machine = machine_with(faulty(READ, act))

    check_reads_ones(machine, f"s0:region0+0x10, 4) {message}")
    check_goes_on(machine)


WRONG_COUNTS = [
    pytest.param(0, "failed: short read", id="none"),
    pytest.param(5, "failed: Argument list too long", id="one-more"),
    pytest.param(ONES, "failed: Argument list too long", id="all"),
]


def count_of(count: int) -> Act:
    """Answer with another count of bytes than are in the answer."""
    return altered(lambda payload: payload[:12] + count.to_bytes(4, "little") + payload[16:])


@pytest.mark.parametrize(("count", "message"), WRONG_COUNTS)
@pytest.mark.rule("PEER-02")
def test_wrong_count_is_refused(machine_with: OpenMachine, count: int, message: str) -> None:
    """A count that is not what was asked for fails the read."""
    machine = machine_with(faulty(READ, count_of(count)))

    check_reads_ones(machine, message)
    check_goes_on(machine)


@pytest.mark.negative_control("PEER-01", "PEER-02")
def test_ones_are_not_what_is_read_of_a_good_server(machine_with: OpenMachine) -> None:
    """The check fails with a server that answers well."""
    machine = machine_with(Session)

    with must_fail():
        check_reads_ones(machine, "failed")


def test_late_answer_is_waited_for(machine_with: OpenMachine) -> None:
    """An answer that comes within 5 s is taken as if it had come at once."""
    machine = machine_with(faulty(ONCE, late(0.3)))

    assert machine.read(0, 0x10) == WORD
    check_goes_on(machine)


def test_wrong_data_reaches_the_guest(machine_with: OpenMachine) -> None:
    """What a server lies about the contents of a register is the guest's to find out."""
    machine = machine_with(faulty(READ, altered(lambda payload: payload[:16] + b"\xa5" * 4)))

    assert machine.read(0, 0x10) == 0xA5A5_A5A5
    check_goes_on(machine)


@pytest.mark.full  # 5 s of QEMU's patience
@pytest.mark.rule("PEER-03")
def test_silence_costs_one_read(machine_with: OpenMachine) -> None:
    """A read that is never answered ends after 5 s with ones; the next one is answered."""
    machine = machine_with(faulty(ONCE, silent()))

    check_reads_ones(machine, "timed out waiting for reply")
    assert machine.read(0, 0x10) == WORD
    check_goes_on(machine)


@pytest.mark.negative_control("PEER-03")
def test_silence_is_not_said_of_a_good_server(machine_with: OpenMachine) -> None:
    """The check fails with a server that answers well."""
    machine = machine_with(faulty(ONCE, late(0.1)))

    with must_fail():
        check_reads_ones(machine, "timed out waiting for reply")


@pytest.mark.full  # 5 s of QEMU's patience
@pytest.mark.rule("PEER-04")
def test_closed_connection_cuts_the_device_off(machine_with: OpenMachine) -> None:
    """A device whose server is gone reads as ones; QEMU lives."""
    machine = machine_with(faulty(READ, closes()))

    check_reads_ones(machine, "failed to read header: EOF")
    check_is_cut_off(machine)


@pytest.mark.full  # 5 s of QEMU's patience
@pytest.mark.rule("PEER-05")
def test_noise_cuts_the_device_off(machine_with: OpenMachine) -> None:
    """Bytes that are no message end the connection; QEMU lives."""
    machine = machine_with(faulty(ONCE, garbage()))

    check_reads_ones(machine, "unknown message type")
    assert machine.answers()


@pytest.mark.negative_control("PEER-04", "PEER-05")
def test_good_server_is_not_cut_off(machine_with: OpenMachine) -> None:
    """The check fails with a server that answers well."""
    machine = machine_with(Session)

    with must_fail():
        check_is_cut_off(machine)
    with must_fail():
        check_reads_ones(machine, "")


UNASKED = [
    pytest.param(altered(lambda payload: payload + bytes(64)), "reply larger than", id="bytes"),
    pytest.param(with_descriptors(2), "unexpected FDs in reply", id="descriptors"),
]


@pytest.mark.parametrize(("act", "message"), UNASKED)
@pytest.mark.rule("PEER-06")
def test_more_than_was_asked_for_is_refused(
    machine_with: OpenMachine, act: Act, message: str
) -> None:
    """Bytes and descriptors that QEMU has no room for fail the read."""
    machine = machine_with(faulty(ONCE, act))

    check_reads_ones(machine, message)
    assert machine.answers()


@pytest.mark.negative_control("PEER-06")
def test_what_was_asked_for_is_taken(machine_with: OpenMachine) -> None:
    """The check fails where the reply is as long as it should be."""
    machine = machine_with(faulty(ONCE, with_descriptors(0)))

    with must_fail():
        check_reads_ones(machine, "unexpected FDs in reply")


# -- what the server asks ---------------------------------------------------------------------


def check_trespass_is_refused(machine: Misbehaving, address: int) -> None:
    """Reading and writing there by message is answered with ENODEV."""
    for write in (False, True):
        number = 0
        try:
            trespass(machine.device, address, 4, write=write)
        except RequestFailed as refused:
            number = refused.number
        assert number == errno.ENODEV, f"{address:#x}: answered with {number}"


@pytest.mark.parametrize("address", [NOWHERE, 1 << 40, (1 << 64) - 8])
@pytest.mark.rule("PEER-08")
def test_dma_outside_of_memory_is_refused(machine_with: OpenMachine, address: int) -> None:
    """A device that asks for what is no memory gets an error, and QEMU goes on."""
    machine = machine_with(Session)

    check_trespass_is_refused(machine, address)
    check_goes_on(machine)


@pytest.mark.rule("PEER-08")
def test_dma_without_bus_mastering_is_refused(machine_with: OpenMachine) -> None:
    """With Bus Master Enable clear, memory is out of reach and stays what it was."""
    machine = machine_with(Session)
    machine.memory(MEMORY, WORD)
    machine.master(False)

    check_trespass_is_refused(machine, MEMORY)
    assert machine.memory(MEMORY) == WORD


@pytest.mark.negative_control("PEER-08")
def test_dma_inside_of_memory_is_not_refused(machine_with: OpenMachine) -> None:
    """The check fails where the device may write."""
    machine = machine_with(Session)

    with must_fail():
        check_trespass_is_refused(machine, MEMORY)


def check_unknown_request_is_told(machine: Misbehaving, command: int) -> None:
    """QEMU says that it does not know the request, and the read is answered all the same."""
    assert machine.read(0, 0x10) == WORD
    said = f"vfio_user_pci_process_req unknown cmd {command}"
    assert said in machine.said("unknown cmd"), machine.stderr()
    check_goes_on(machine)


@pytest.mark.parametrize("command", [Command.VERSION, Command.REGION_READ, 999])
@pytest.mark.rule("PEER-09")
def test_unknown_request_is_ignored(machine_with: OpenMachine, command: int) -> None:
    """A request that is no client's to answer is told of, and no more."""
    machine = machine_with(faulty(ONCE, asks(command, bytes(16))))

    check_unknown_request_is_told(machine, command)


@pytest.mark.negative_control("PEER-09")
def test_another_request_is_not_that_request(machine_with: OpenMachine) -> None:
    """The check fails for a number that was not sent."""
    machine = machine_with(faulty(ONCE, asks(999, bytes(16))))

    with must_fail():
        check_unknown_request_is_told(machine, 998)


def check_interrupt_arrived(machine: Misbehaving) -> None:
    """The data of the vector is where the vector says."""
    assert machine.answers()
    assert machine.memory(VECTOR_ADDRESS) == VECTOR_DATA


@pytest.mark.rule("PEER-10")
def test_storm_of_interrupts_is_survived(machine_with: OpenMachine) -> None:
    """After a hundred thousand interrupts the machine goes on, and the next one arrives."""
    machine = machine_with(Session)
    machine.enable_msix()

    assert storm(machine.device, 0, STORM) == STORM
    assert machine.answers()
    machine.memory(VECTOR_ADDRESS, 0)
    assert machine.device.interrupt(0)

    check_interrupt_arrived(machine)
    check_goes_on(machine)


@pytest.mark.negative_control("PEER-10")
def test_interrupt_that_was_not_sent_is_missed(machine_with: OpenMachine) -> None:
    """The check fails where no interrupt came."""
    machine = machine_with(Session)
    machine.enable_msix()

    with must_fail():
        check_interrupt_arrived(machine)


# -- at start ---------------------------------------------------------------------------------


def number_at(offset: int, value: int, size: int = 4) -> Act:
    """Answer with another number at an offset of the payload."""
    data = value.to_bytes(size, "little")
    return altered(lambda payload: payload[:offset] + data + payload[offset + size :])


def version_data(text: bytes) -> Act:
    """Answer VERSION with other data."""
    return altered(lambda payload: payload[:4] + text + b"\0")


INFO, REGION = When(Command.GET_INFO), When(Command.GET_REGION_INFO, region=0)
VERSION, IRQ = When(Command.VERSION), When(Command.GET_IRQ_INFO)
CONFIG = When(Command.REGION_READ, region=protocol.CONFIG_REGION)
CONFIG_INFO = When(Command.GET_REGION_INFO, region=protocol.CONFIG_REGION)
CAPABILITIES = version_data(b'{"capabilities": []}')
LIES = [
    pytest.param(VERSION, number_at(0, 1, 2), "incompatible server version", id="major"),
    pytest.param(VERSION, number_at(2, 9, 2), "incompatible server version", id="minor"),
    pytest.param(VERSION, altered(lambda _: b""), "short version reply", id="no-version"),
    pytest.param(VERSION, altered(lambda p: p[:-1]), "corrupt version reply", id="no-nul"),
    pytest.param(VERSION, version_data(b"{{"), "malformed capabilities", id="no-json"),
    pytest.param(VERSION, version_data(b"[1]"), "not an object", id="a-list"),
    pytest.param(VERSION, CAPABILITIES, "malformed capabilities", id="capabilities"),
    pytest.param(
        VERSION, version_data(b'{"capabilities": {"pgsizes": 0}}'), "too small", id="page-size"
    ),
    pytest.param(
        VERSION,
        version_data(b'{"capabilities": {"max_msg_fds": 1000}}'),
        "malformed max_msg_fds",
        id="descriptors",
    ),
    pytest.param(INFO, fails(errno.EIO), "VFIO_USER_DEVICE_GET_INFO failed", id="info-error"),
    pytest.param(INFO, number_at(4, 1), "this isn't a PCI device", id="not-pci"),
    pytest.param(INFO, number_at(8, 0), "unexpected number of io regions 0", id="no-regions"),
    pytest.param(INFO, number_at(8, 101), "invalid reply", id="101-regions"),
    pytest.param(INFO, number_at(12, 0), "unexpected number of irqs 0", id="no-interrupts"),
    pytest.param(INFO, number_at(12, 51), "invalid reply", id="51-interrupts"),
    pytest.param(
        REGION, fails(errno.EIO), "failed to get region 0 info: Input/output error", id="region"
    ),
    pytest.param(REGION, number_at(0, 0), "reply argsz too small", id="argsz-0"),
    pytest.param(REGION, number_at(0, ONES), "reply argsz too large", id="argsz-max"),
    pytest.param(CONFIG_INFO, fails(errno.EIO), "failed to get config info", id="config-info"),
    pytest.param(
        CONFIG_INFO, number_at(16, 0, 8), "failed to read device config space", id="no-config"
    ),
    pytest.param(
        CONFIG,
        fails(errno.EIO),
        "failed to read device config space: Input/output error",
        id="config",
    ),
    pytest.param(IRQ, fails(errno.EIO), "failed to get MSI-X irq info", id="interrupts"),
]


def check_is_refused(qemu: Build, session: SessionMaker, message: str) -> None:
    """QEMU ends with status 1 and the message."""
    ending = ending_with(qemu, session)
    assert ending.status == 1, f"status {ending.status}: {ending.said}"
    assert message in ending.said, ending.said


@pytest.mark.parametrize(("when", "act", "message"), LIES)
@pytest.mark.rule("PEER-07")
def test_lie_at_start_is_refused(qemu: Build, when: When, act: Act, message: str) -> None:
    """What a server cannot be is refused with its reason."""
    check_is_refused(qemu, faulty(when, act), message)


@pytest.mark.negative_control("PEER-07")
def test_good_server_is_not_refused(qemu: Build) -> None:
    """The check fails with a server that says what it is."""
    with must_fail():
        check_is_refused(qemu, Session, "")

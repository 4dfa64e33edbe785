"""Interrupts by eventfd: enabled, masked, pending, level-triggered."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from harness.device import protocol
from harness.device.client import Client
from harness.device.device import Device
from harness.device.interrupts import Interrupts
from harness.device.protocol import Command, RequestFailed
from harness.device.server import Served
from harness.wait import wait_until

TRIGGER = protocol.SET_EVENTFD | protocol.SET_TRIGGER


class Events:
    """Eventfds that are closed at the end."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def make(self, count: int = 1) -> list[int]:
        new = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(count)]
        self.fds += new
        return new

    def count(self, fd: int) -> int:
        try:
            return os.eventfd_read(fd)
        except BlockingIOError:
            return 0


@pytest.fixture
def events() -> Iterator[Events]:
    made = Events()
    yield made
    for fd in made.fds:
        os.close(fd)


@pytest.mark.parametrize(
    ("index", "count"),
    [(protocol.INTX, 1), (protocol.MSI, 4), (protocol.MSIX, 8), (protocol.ERR, 1)],
)
def test_each_type_has_its_vectors(client: Client, index: int, count: int) -> None:
    flags, vectors = client.irq_info(index)

    assert flags & protocol.IRQ_EVENTFD
    assert vectors == count


def test_intx_masks_itself(client: Client) -> None:
    assert client.irq_info(protocol.INTX)[0] & protocol.IRQ_AUTOMASKED


@pytest.mark.parametrize(("index", "count"), [(protocol.MSI, 4), (protocol.MSIX, 8)])
def test_a_message_signalled_interrupt_reaches_its_vector_only(
    client: Client, device: Device, events: Events, index: int, count: int
) -> None:
    fds = events.make(count)
    client.set_irqs(index, TRIGGER, 0, count, fds=fds)

    assert device.interrupt(2)

    assert [events.count(fd) for fd in fds] == [int(n == 2) for n in range(count)]


def test_what_is_not_enabled_is_not_sent(client: Client, device: Device) -> None:
    assert not device.interrupt(0)


def test_without_intx_nothing_shows_in_the_status_register() -> None:
    irqs = Interrupts(msix=1)

    assert not irqs.fire(0)
    assert not irqs.status


def test_msix_goes_before_msi(client: Client, device: Device, events: Events) -> None:
    msi, msix = events.make(2)
    client.set_irqs(protocol.MSI, TRIGGER, fds=[msi])
    client.set_irqs(protocol.MSIX, TRIGGER, fds=[msix])
    device.interrupt(0)

    assert (events.count(msi), events.count(msix)) == (0, 1)


def test_a_masked_vector_is_pending_until_it_is_unmasked(
    client: Client, device: Device, events: Events
) -> None:
    (fd,) = events.make()
    client.set_irqs(protocol.MSIX, TRIGGER, 3, 1, fds=[fd])
    client.set_irqs(protocol.MSIX, protocol.SET_NONE | protocol.SET_MASK, 3, 1)

    assert not device.interrupt(3)
    assert client.read(0, 0xC00, 8) == bytes([1 << 3, 0, 0, 0, 0, 0, 0, 0])
    assert events.count(fd) == 0

    client.set_irqs(protocol.MSIX, protocol.SET_NONE | protocol.SET_UNMASK, 3, 1)

    assert events.count(fd) == 1
    assert client.read(0, 0xC00, 8) == bytes(8)


def test_booleans_choose_vectors(client: Client, device: Device, events: Events) -> None:
    fds = events.make(4)
    client.set_irqs(protocol.MSI, TRIGGER, 0, 4, fds=fds)
    client.set_irqs(protocol.MSI, protocol.SET_BOOL | protocol.SET_TRIGGER, 0, 4, data=b"\0\1\0\1")

    assert [events.count(fd) for fd in fds] == [0, 1, 0, 1]


def test_a_vector_without_descriptor_is_taken_away(
    client: Client, device: Device, events: Events
) -> None:
    fds = events.make(2)
    client.set_irqs(protocol.MSIX, TRIGGER, 0, 2, fds=fds)
    client.set_irqs(protocol.MSIX, TRIGGER, 1, 1)

    assert device.interrupt(0)
    assert not device.interrupt(1)


def test_a_type_is_disabled_as_a_whole(client: Client, device: Device, events: Events) -> None:
    client.set_irqs(protocol.MSIX, TRIGGER, 0, 2, fds=events.make(2))
    client.set_irqs(protocol.MSIX, protocol.SET_NONE | protocol.SET_TRIGGER, 0, 0)

    assert not device.interrupt(0)
    assert not device.irqs.types[protocol.MSIX].enabled


def test_intx_fires_once_until_it_is_unmasked(
    client: Client, device: Device, events: Events
) -> None:
    (fd,) = events.make()
    client.set_irqs(protocol.INTX, TRIGGER, fds=[fd])

    assert device.interrupt()
    assert not device.interrupt()
    assert events.count(fd) == 1


def test_a_raised_line_fires_again_after_each_unmask(
    client: Client, device: Device, events: Events
) -> None:
    (fd,) = events.make()
    client.set_irqs(protocol.INTX, TRIGGER, fds=[fd])
    unmask = protocol.SET_NONE | protocol.SET_UNMASK

    device.line(True)
    assert events.count(fd) == 1
    client.set_irqs(protocol.INTX, unmask)
    assert events.count(fd) == 1
    device.line(False)
    client.set_irqs(protocol.INTX, unmask)
    assert events.count(fd) == 0


def test_intx_is_unmasked_by_eventfd(client: Client, device: Device, events: Events) -> None:
    fd, unmask = events.make(2)
    client.set_irqs(protocol.INTX, TRIGGER, fds=[fd])
    client.set_irqs(protocol.INTX, protocol.SET_EVENTFD | protocol.SET_UNMASK, fds=[unmask])
    device.line(True)
    assert events.count(fd) == 1

    os.eventfd_write(unmask, 1)

    wait_until("the line fires again", lambda: events.count(fd), timeout=10)


def test_a_full_eventfd_does_not_block_the_device(
    client: Client, device: Device, events: Events
) -> None:
    full = os.eventfd(0, os.EFD_CLOEXEC)  # blocking
    events.fds.append(full)
    os.eventfd_write(full, (1 << 64) - 2)
    client.set_irqs(protocol.MSIX, TRIGGER, fds=[full])

    assert not device.interrupt(0)
    assert client.info()


def test_removal_and_errors_are_asked_for(client: Client, device: Device, events: Events) -> None:
    error, removal = events.make(2)
    client.set_irqs(protocol.ERR, TRIGGER, fds=[error])
    client.set_irqs(protocol.REQ, TRIGGER, fds=[removal])

    assert device.report_error()
    assert device.ask_for_removal()

    assert (events.count(error), events.count(removal)) == (1, 1)


NONE, BOOL, EVENTFD = protocol.SET_NONE, protocol.SET_BOOL, protocol.SET_EVENTFD
MASK, UNMASK = protocol.SET_MASK, protocol.SET_UNMASK


@pytest.mark.parametrize(
    ("index", "flags", "start", "count", "data"),
    [
        (5, NONE | MASK, 0, 1, b""),
        (protocol.MSIX, NONE | MASK, 8, 1, b""),
        (protocol.MSIX, NONE | MASK, 0, 9, b""),
        (protocol.MSIX, NONE | MASK, 0xFFFFFFFF, 0xFFFFFFFF, b""),
        (protocol.MSIX, NONE | MASK | UNMASK, 0, 1, b""),
        (protocol.MSIX, NONE | BOOL | MASK, 0, 1, b"\1"),
        (protocol.MSIX, MASK, 0, 1, b""),
        (protocol.MSIX, NONE, 0, 1, b""),
        (protocol.MSIX, NONE | MASK | 0x40, 0, 1, b""),
        (protocol.MSIX, NONE | MASK, 0, 0, b""),
        (protocol.MSIX, BOOL | MASK, 0, 4, b"\1"),
        (protocol.MSIX, EVENTFD | UNMASK, 0, 1, b""),
        (protocol.MSIX, EVENTFD | MASK, 0, 1, b""),
        (protocol.ERR, NONE | MASK, 0, 1, b""),
    ],
)
def test_what_no_client_may_ask_is_refused(
    client: Client, index: int, flags: int, start: int, count: int, data: bytes
) -> None:
    with pytest.raises(RequestFailed) as refused:
        client.set_irqs(index, flags, start, count, data=data)

    assert refused.value.number == errno.EINVAL
    assert client.info()


def test_more_descriptors_than_vectors_are_refused(client: Client, events: Events) -> None:
    with pytest.raises(RequestFailed):
        client.set_irqs(protocol.MSIX, TRIGGER, 0, 1, fds=events.make(2))


def test_a_pipe_is_no_eventfd(client: Client, served: Served) -> None:
    ends = os.pipe()
    with pytest.raises(RequestFailed):
        client.set_irqs(protocol.MSIX, TRIGGER, fds=[ends[1]])
    for fd in ends:
        os.close(fd)

    assert "no eventfd" in str(served.peer_errors[0])


def io_fds(client: Client, region: int, argsz: int = 4096) -> tuple[bytes, tuple[int, ...]]:
    request = protocol.IO_FDS.pack(argsz, 0, region, 0)
    reply = client.exchange(Command.GET_REGION_IO_FDS, request)
    assert not reply.failed
    return reply.payload, reply.fds


def test_ioeventfds_are_described(client: Client, events: Events) -> None:
    payload, fds = io_fds(client, 0)
    events.fds += fds

    assert protocol.IO_FDS.unpack_from(payload) == (16 + 2 * 40, 0, 0, 2)
    found = list(protocol.IO_FD.iter_unpack(payload[16:]))
    assert found == [
        (0x40, 4, 0, 0, 0, 0, 0),
        (0x44, 4, 1, 0, protocol.IOEVENTFD_DATAMATCH, 0, 7),
    ]


def test_ioeventfds_of_ports_say_so(client: Client, events: Events) -> None:
    payload, fds = io_fds(client, 1)
    events.fds += fds

    assert protocol.IO_FD.unpack_from(payload, 16)[4] == protocol.IOEVENTFD_PIO


def test_a_region_without_ioeventfds_has_none(client: Client) -> None:
    assert io_fds(client, 2) == (protocol.IO_FDS.pack(16, 0, 2, 0), ())


def test_a_small_buffer_gets_no_ioeventfds_but_their_size(client: Client) -> None:
    assert io_fds(client, 0, argsz=16) == (protocol.IO_FDS.pack(96, 0, 0, 2), ())


def test_a_rung_doorbell_is_a_write(
    client: Client, served: Served, device: Device, events: Events
) -> None:
    _, fds = io_fds(client, 0)
    events.fds += fds

    os.eventfd_write(fds[1], 1)

    wait_until("the doorbell is heard", lambda: device.log.count(0), timeout=10)
    assert (0, 0x44, 4, 7) in served.device.writes  # type: ignore[attr-defined]
    assert device.log.count(operation="ioeventfd") == 1
    assert client.info()  # messages are still answered


def test_a_doorbell_whose_handler_raises_keeps_the_client(
    client: Client, served: Served, device: Device, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, fds = io_fds(client, 0)
    events.fds += fds
    monkeypatch.setattr(device, "write", lambda *_: 1 // 0)

    os.eventfd_write(fds[1], 1)

    wait_until("it has failed", lambda: len(served.failures), timeout=10)
    assert isinstance(served.failures[0], ZeroDivisionError)
    assert client.info()


def status(client: Client) -> bool:
    return bool(client.read(protocol.CONFIG_REGION, 6, 2)[0] & 8)


def test_a_raised_line_shows_in_the_status_register(client: Client, device: Device) -> None:
    assert not status(client)
    device.line(True)
    assert status(client)
    assert client.read(protocol.CONFIG_REGION, 0, 64)[6] & 8
    device.line(False)
    assert not status(client)


def test_a_pulse_shows_in_the_status_register_until_it_is_unmasked(
    client: Client, device: Device, events: Events
) -> None:
    client.set_irqs(protocol.INTX, TRIGGER, fds=events.make())
    device.interrupt()
    assert status(client)
    client.set_irqs(protocol.INTX, NONE | UNMASK)
    assert not status(client)


def test_a_line_that_is_disabled_is_quiet_until_it_is_enabled(
    client: Client, device: Device, events: Events
) -> None:
    (fd,) = events.make()
    client.set_irqs(protocol.INTX, TRIGGER, fds=[fd])
    client.write(protocol.CONFIG_REGION, 4, b"\0\4")
    device.line(True)

    assert events.count(fd) == 0
    assert status(client)

    client.write(protocol.CONFIG_REGION, 4, b"\0\0")

    assert events.count(fd) == 1

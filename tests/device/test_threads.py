"""DMA and interrupts from a thread of the device's own, while the client takes them away."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable

from harness.device import protocol
from harness.device.client import Client
from harness.device.device import Device, DmaFault

BASE = 0x10_0000
ROUNDS = 200


def hammer(work: Callable[[], object], while_: Callable[[], None]) -> Counter[str]:
    """Do *work* again and again in a thread while *while_* runs; count how it ended."""
    done = threading.Event()
    ends: Counter[str] = Counter()

    def loop() -> None:
        while not done.is_set():
            try:
                ends[f"{type(work()).__name__}"] += 1
            except Exception as error:
                ends[type(error).__name__] += 1

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        while_()
    finally:
        done.set()
        thread.join()
    return ends


def test_dma_meets_memory_or_a_fault(client: Client, device: Device) -> None:
    def map_and_unmap() -> None:
        for _ in range(ROUNDS):
            fd = os.memfd_create("guest", os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, 0x1000)
            client.dma_map(BASE, 0x1000, fd=fd)
            os.close(fd)
            client.dma_unmap(BASE, 0x1000)

    ends = hammer(lambda: device.dma_read(BASE, 8), map_and_unmap)

    assert set(ends) <= {"bytes", DmaFault.__name__}, ends


def test_interrupts_go_to_eventfds_or_nowhere(client: Client, device: Device) -> None:
    strangers: list[int] = []

    def set_and_clear() -> None:
        for _ in range(ROUNDS):
            fd = os.eventfd(0, os.EFD_NONBLOCK)
            flags = protocol.SET_EVENTFD | protocol.SET_TRIGGER
            client.set_irqs(protocol.MSIX, flags, fds=[fd])
            client.set_irqs(protocol.MSIX, protocol.SET_NONE | protocol.SET_TRIGGER, 0, 0)
            os.close(fd)
            strangers.append(os.eventfd(0, os.EFD_NONBLOCK))  # gets numbers that are free

    ends = hammer(lambda: device.interrupt(0), set_and_clear)
    rung = [fd for fd in strangers if _count(fd)]
    for fd in strangers:
        os.close(fd)

    assert set(ends) == {"bool"}, ends
    assert not rung


def _count(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0

"""Drive the doorbell without QEMU: what a guest's driver does, by `harness.device.client`.

``python examples/ring.py`` serves the device and rings it once; with the path of a socket it
rings the one that ``trapline device serve examples/doorbell.py --socket PATH`` serves.
"""

import contextlib
import os
import sys
from pathlib import Path

from doorbell import ADDRESS, DOORBELL, LENGTH, Doorbell

from harness.device import protocol
from harness.device.client import Client
from harness.device.server import serve

IOVA = 0x10_0000
TEXT = b"hello from the guest"


def drive(client: Client) -> None:
    """Set it up as a driver does, ring, wait for the interrupt."""
    client.write(protocol.CONFIG_REGION, 0x04, b"\x06\0")  # decode memory, be bus master
    client.dma_map(IOVA, 0x1000)  # one page; the device asks for it by message
    client.memory[IOVA][: len(TEXT)] = TEXT
    event = os.eventfd(0, os.EFD_NONBLOCK)
    client.set_irqs(protocol.MSIX, protocol.SET_EVENTFD | protocol.SET_TRIGGER, fds=[event])
    client.write(0, ADDRESS, IOVA.to_bytes(8, "little"))
    client.write(0, LENGTH, len(TEXT).to_bytes(4, "little"))
    client.write(0, DOORBELL, bytes(4))
    while not (interrupts := count(event)):
        client.serve_for(0.01)  # a client answers what the device asks of memory
    os.close(event)
    print(f"memory: {bytes(client.memory[IOVA][: len(TEXT)])!r}")
    print(f"interrupts: {interrupts}, work done: {client.read(0, DOORBELL, 4)[0]}")


def count(event: int) -> int:
    """Return how often an eventfd was signalled since it was last asked."""
    try:
        return os.eventfd_read(event)
    except BlockingIOError:
        return 0


def main() -> None:
    """Drive the device that is served, or one of our own."""
    with contextlib.ExitStack() as stack:
        if len(sys.argv) > 1:
            drive(stack.enter_context(Client(Path(sys.argv[1]))))
            return
        served = stack.enter_context(serve(Doorbell()))
        with Client(served.socket) as client:
            drive(client)
        print("what reached the device:")
        for access in served.accesses:
            print(
                f"  region {access.region} {access.offset:#06x} {access.width} {access.operation}"
            )


if __name__ == "__main__":
    main()

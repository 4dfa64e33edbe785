"""A piece of the AP bus of an IBM Z host: taken, written down, put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from harness.ap.attributes import Attributes
from harness.ap.lease import take_bus
from harness.ap.plot import PLOT_UUIDS, Plot
from harness.errors import MissingDevice
from harness.guest.system import System
from harness.host.journal import Journal
from harness.host.locks import HostLocks
from harness.host.physical import boot_id, canonical, connect
from harness.host.supply import supply
from harness.images.cache import hash_file


@contextlib.contextmanager
def open_plot(word: str, *, helper: Path, run: str) -> Iterator[Plot]:
    """Have queues of the host *word* (``ssh://…``, ``local``) that nobody uses, while inside.

    :param helper: the static ``ap-probe`` for s390x.
    :param run: directory of the run, told to others that want the same bus.
    :raise MissingDevice: it is no IBM Z, or has no queue for guests that is free.
    :raise DeviceBusy: another run has its AP bus.
    """
    with contextlib.ExitStack() as stack:
        transport = connect(word)
        stack.callback(transport.close)
        machine = transport.run("uname -m").stdout.strip()
        if machine != "s390x":
            raise MissingDevice(f"{word} is {machine}", hint="AP queues are in IBM Z (s390x)")
        system = System(transport, level="L1")
        journal = Journal.of_host(canonical(word), url=word, boot=boot_id(transport))
        locks = HostLocks.of_host(canonical(word), run=run)
        lease = take_bus(system, journal, locks, uuids=PLOT_UUIDS)
        stack.callback(lease.end)
        path = supply(transport, helper, key=hash_file(helper))
        attributes = Attributes(transport.open([path, "sysfs"]), where=system.name)
        stack.callback(attributes.close)
        yield Plot(attributes, *lease.rectangle)

"""The AP bus of a host: masks, cards, queues, drivers.

Source: Documentation/arch/s390/vfio-ap.rst and drivers/s390/crypto/ap_bus.c of Linux.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.ap.attributes import Attributes

BUS = "/sys/bus/ap"
VFIO_AP = "vfio_ap"
_QUEUE = re.compile(r"[0-9a-f]{2}\.[0-9a-f]{4}")


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue device of the bus."""

    name: str
    """``05.00ab``."""
    driver: str
    """Empty if no driver has it."""
    status: str
    """``unassigned``, ``assigned``, ``in use``; empty unless vfio_ap has it."""


class ApBus:
    """The AP bus as sysfs shows it."""

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes

    # -- attributes of the bus -----------------------------------------------------------------

    def read(self, name: str) -> str:
        """Return an attribute of the bus (``apmask``, ``bindings``, ``features`` …)."""
        return self.attributes.read(f"{BUS}/{name}")

    def write(self, name: str, text: str) -> str:
        """Write an attribute of the bus; return the errno, empty if accepted."""
        return self.attributes.write(f"{BUS}/{name}", text)

    @property
    def masks(self) -> tuple[str, str]:
        """``apmask`` and ``aqmask``."""
        return self.read("apmask"), self.read("aqmask")

    def scan(self) -> None:
        """Look for changed adapters now; returns when the bus knows them."""
        self.attributes.must_write(f"{BUS}/scans", "1")

    # -- devices --------------------------------------------------------------------------------

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of cards (``card05``) and queues (``05.0004``), sorted."""
        return self.attributes.names(f"{BUS}/devices")

    @property
    def cards(self) -> tuple[str, ...]:
        """Names of the cards."""
        return tuple(name for name in self.devices if name.startswith("card"))

    @property
    def queue_names(self) -> tuple[str, ...]:
        """Names of the queues."""
        return tuple(name for name in self.devices if _QUEUE.fullmatch(name))

    @property
    def queues(self) -> Mapping[str, QueueState]:
        """Every queue, with driver and status, by name."""
        names = self.queue_names
        drivers = self.attributes.links([f"{BUS}/devices/{name}/driver" for name in names])
        answers = self.attributes.read_all([f"{BUS}/devices/{name}/status" for name in names])
        return {
            name: QueueState(name, driver, answer.text)
            for name, driver, answer in zip(names, drivers, answers, strict=True)
        }

    def driver(self, device: str) -> str:
        """Return the driver of a card or queue, empty if it has none."""
        return self.attributes.link(f"{BUS}/devices/{device}/driver")

    def status(self, queue: str) -> str:
        """Return ``status`` of a queue, empty if it has no such attribute now."""
        return self.attributes.try_read(f"{BUS}/devices/{queue}/status").text

    def attribute(self, device: str, name: str) -> str:
        """Return an attribute of a card or queue."""
        return self.attributes.read(f"{BUS}/devices/{device}/{name}")

    def unbind(self, queue: str, *, driver: str = VFIO_AP) -> str:
        """Take *queue* from *driver*; return the errno, empty if it went."""
        return self.attributes.write(f"{BUS}/drivers/{driver}/unbind", queue)

    def bind(self, queue: str, *, driver: str = VFIO_AP) -> str:
        """Give *queue* to *driver*; return the errno, empty if it was taken."""
        return self.attributes.write(f"{BUS}/drivers/{driver}/bind", queue)

    @property
    def has_driver_override(self) -> bool:
        """Say whether queues can be given to a driver one by one (Linux 6.19)."""
        names = self.queue_names
        return bool(names) and self.attributes.exists(f"{BUS}/devices/{names[0]}/driver_override")

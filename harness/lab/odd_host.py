"""A virtual host with functions that no usual one has, for rules about coming, going and reset.

- Two functions in one slot (`LEFT`, `RIGHT`), each in an IOMMU group of its own, without a reset
  of their own: what resets one resets both.
- An nvme that makes virtual functions, and whose driver leaves them when it goes.
- Network cards (e1000e) without a function level reset, which a change of the power state resets,
  as they say: one on the root bus, which nobody can reset, one alone on a bus, two in one slot.
- Integrated graphics by its ids (`IGD`), without anything that a real one has besides.

Twins and graphics are devices in Python; they are on the kernel's way (`harness.lab.shape_host`).
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.device.server import serve
from harness.device.spec import RawCapability
from harness.guest.keys import RunKey
from harness.host.virtual import VirtualHost
from harness.lab.hosts import open_virtual
from harness.lab.parts import Parts
from harness.lab.vfio_user import DRIVER, parts_with_devices
from harness.machine.command import Device
from harness.model.pci import BarKind, Bdf, PciFunction, PciId
from harness.shapes.named.catalogue import KIB, NAMED, NETWORK, NamedShape, whole
from harness.step import step

_ACS: Final = RawCapability(0x0D, bytes(4), extended=True)
"""Access control services that need nothing controlled: the functions never talk (PCIe 6.0,
7.7.11), so Linux gives each a group of its own (``pci_acs_enabled()``)."""
_TWIN: Final = PciId(0x1234, 0x7717)
MANY: Final = PciId(0x1B36, 0x0010)
"""The nvme that makes virtual functions; the host has no other."""


def _twin(name: str, device: int) -> NamedShape:
    return NamedShape(
        name, "one of two functions in a slot", "made up: no FLR, no power management",
        PciId(_TWIN.vendor, _TWIN.device + device), NETWORK,
        (whole(0, BarKind.MEM32, 16 * KIB),),
        capabilities=(_ACS,),
    )  # fmt: skip


LEFT: Final = _twin("left", 0)
RIGHT: Final = _twin("right", 1)
IGD: Final = NAMED["igd-9"]
CARD: Final = PciId(0x8086, 0x10D3)
_ROOT_SLOT: Final = 0x11
_SLOW: Final = {"slow0": 0x12, "slow1": 0x13}
"""Ports, and their slots, of which Linux does not want to hear that their link is active after a
reset of their bus: others never say so (docs/findings/port-link-never-active.md)."""


@dataclass
class OddHost:
    """The host; closing it ends the servers of its devices too."""

    host: VirtualHost
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def twins(self) -> tuple[PciFunction, PciFunction]:
        """The two functions of one slot."""
        return self.host.find_one(LEFT.id), self.host.find_one(RIGHT.id)

    @property
    def graphics(self) -> PciFunction:
        """The integrated graphics."""
        return self.host.find_one(IGD.id)

    @property
    def lone_card(self) -> PciFunction:
        """The network card on the root bus."""
        return self.host.function(Bdf(0, 0, _ROOT_SLOT, 0))

    @property
    def single_card(self) -> PciFunction:
        """The network card that is alone on its bus."""
        (found,) = self._cards(1)
        return found

    @property
    def cards(self) -> tuple[PciFunction, PciFunction]:
        """The two network cards of one slot."""
        left, right = self._cards(2)
        return left, right

    def _cards(self, together: int) -> list[PciFunction]:
        """Return the network cards behind ports of which as many share a bus."""
        there = [card for card in self.host.find(CARD) if card.bdf.bus]
        buses = Counter(card.bdf.bus for card in there)
        return [card for card in there if buses[card.bdf.bus] == together]

    @property
    def many(self) -> PciFunction:
        """The nvme that makes virtual functions."""
        return self.host.find_one(MANY)

    def close(self) -> None:
        """End the host, then the servers."""
        self._stack.close()


def open_odd_host(parts: Parts, *, key: RunKey, evidence: Path) -> OddHost:
    """Boot the host."""
    with ExitStack() as stack:
        served = {}
        for shape in (LEFT, RIGHT, IGD):
            served[shape.name] = serve(shape.device())
            stack.callback(served[shape.name].close)

        def seat(shape: NamedShape, bus: str, addr: str, **options: bool) -> Device:
            socket = str(served[shape.name].socket)
            return Device(DRIVER, shape.name, bus, addr, {"rombar": 0, **options}, socket)

        devices = (
            seat(LEFT, "rp0", "0.0", multifunction=True),
            seat(RIGHT, "rp0", "0.1"),
            seat(IGD, "pcie.0", "0x10"),
            Device("e1000e", "lone", "pcie.0", f"{_ROOT_SLOT:#x}", {"romfile": ""}),
            *(Device("pcie-root-port", name, "pcie.0", f"{slot:#x}",
                     {"chassis": slot, "slot": slot, "x-speed": "2_5"})
              for name, slot in _SLOW.items()),
            Device("e1000e", "single", "slow0", "0", {"romfile": ""}),
            Device("e1000e", "card0", "slow1", "0.0", {"romfile": "", "multifunction": True}),
            Device("e1000e", "card1", "slow1", "0.1", {"romfile": ""}),
            Device("nvme-subsys", "family"),
            # The smallest numbers that work.
            Device("nvme", "many", "rp1", "0", {
                "serial": "trapline", "subsys": "family", "sriov_max_vfs": 4,
                "sriov_vq_flexible": 8, "sriov_vi_flexible": 4, "max_ioqpairs": 10,
                "msix_qsize": 9,
            }),
        )  # fmt: skip
        with step("boot a virtual host with odd devices"):
            host = open_virtual(
                parts_with_devices(parts), key=key, evidence=evidence, saved=False, devices=(),
                emulated=devices,
            )  # fmt: skip
        stack.callback(host.close)
        return OddHost(host, stack.pop_all())

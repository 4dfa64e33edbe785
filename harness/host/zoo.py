"""One of each shape of PCI device that QEMU emulates, for a virtual host. Pure.

They are on the root bus, so each is alone in its IOMMU group. QEMU cannot save all of them: a
host that has them boots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.machine.command import Device
from harness.model.pci import Bdf, PciId

_FIRST_SLOT = 0x10


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A device of the zoo.

    :param driver: QEMU's name of it.
    :param backend: a ``-object`` that it needs.
    """

    name: str
    driver: str
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    backend: str = ""

    @property
    def slot(self) -> int:
        """Slot on the root bus, of the host and of the machine that it is assigned to."""
        return _FIRST_SLOT + list(ZOO).index(self.name)

    @property
    def bdf(self) -> Bdf:
        """Where the host sees it."""
        return Bdf(0, 0, self.slot, 0)

    def device(self) -> Device:
        """Return the device as the virtual host's QEMU is given it."""
        return Device(self.driver, self.name, "pcie.0", f"0x{self.slot:x}", self.options)

    def assigned(self, **options: str | int | bool) -> Device:
        """Return the device that assigns it to a machine, in the same slot."""
        device = Device("vfio-pci", self.name, "pcie.0", f"0x{self.slot:x}")
        return device.having(host=str(self.bdf), **options)


_TRANSLATED = {"iommu_platform": True, "disable-legacy": True}

ZOO: Mapping[str, Exhibit] = {
    one.name: one
    for one in (
        Exhibit("nvme-exclusive", "nvme", {"serial": "exclusive", "msix-exclusive-bar": True}),
        Exhibit("nvme-pages", "nvme",
                {"serial": "pages", "max_ioqpairs": 512, "msix_qsize": 513}),
        Exhibit("xhci", "qemu-xhci"),
        Exhibit("virtio-rng", "virtio-rng-pci", _TRANSLATED),
        Exhibit("testdev", "pci-testdev", {"membar": 16 * 1024 * 1024}),
        Exhibit("ivshmem", "ivshmem-plain", {"memdev": "shared"},
                "memory-backend-ram,id=shared,share=on,size=1M"),
        Exhibit("rtl8139", "rtl8139", {"romfile": ""}),
        Exhibit("ahci", "ich9-ahci"),
        Exhibit("megasas", "megasas-gen2"),
        Exhibit("lsi", "lsi53c895a"),
    )
}  # fmt: skip
"""By name."""

PEERS: tuple[Device, ...] = (
    Device("pcie-pci-bridge", "bridge", "pcie.0", f"0x{_FIRST_SLOT + len(ZOO):x}"),
    Device("edu", "peer0", "bridge", "1"),
    Device("edu", "peer1", "bridge", "2"),
)
"""Two conventional devices behind one bridge: they share an IOMMU group."""
PEER_ID = PciId(0x1234, 0x11E8)

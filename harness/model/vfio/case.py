"""One assigned function and all that its memory map follows from."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from harness.model.address import AddressRange
from harness.model.expectation import Space
from harness.model.pci import PciFunction
from harness.model.version import KernelVersion, QemuVersion
from harness.model.vfio.mapping import RegionFacts, VfioOptions, VfioState


class Transport(enum.StrEnum):
    """How QEMU reaches the device."""

    KERNEL = "kernel"
    """``vfio-pci``: a function of the host, through Linux."""
    USER = "vfio-user"
    """``vfio-user-pci``: a server behind a socket (``hw/vfio-user/pci.c``, QEMU 10.1). No quirk
    is set up, no option changes the map, and the PBA is always read from the server."""


@dataclass(frozen=True, slots=True)
class VfioCase:
    """Everything the map of an assigned function follows from.

    "Host" is the system that QEMU runs in, which may be virtual itself.
    """

    function: PciFunction
    """As the host sees it."""
    kernel: KernelVersion
    """Of the host."""
    qemu: QemuVersion
    """2.9 or later: before that no flat view says types."""
    bar_addresses: Mapping[int, int]
    """Where each BAR decodes in the guest, as the guest or ``query-pci`` says; BARs that do
    not decode (memory or ports disabled, not programmed) are left out."""
    kvm: bool = False
    """The accelerator is KVM."""
    page: int = 4096
    """Page size of the host's kernel."""
    options: VfioOptions = field(default_factory=VfioOptions)
    state: VfioState = field(default_factory=VfioState)
    subpage_reserved: Collection[int] = ()
    """See `region_facts_of_linux`."""
    regions: Mapping[int, RegionFacts] = field(default_factory=dict)
    """What is known of single regions better than by the kernel's version."""
    rom_address: int | None = None
    """Where the expansion ROM decodes; None while it does not, which is usual."""
    neighbours: Collection[AddressRange] = ()
    """BARs of other devices that may share a page with one of this function."""
    name: str = ""
    """Prefix of region names; empty: the function's address. With ``sysfsdev=`` the last
    part of that path, with fd passing the id of the device."""
    device_id: str | None = None
    """``id=`` of the device, to judge owners."""
    transport: Transport = Transport.KERNEL
    """With `Transport.USER` *kernel* counts for nothing and *regions* for everything."""
    order: tuple[int, ...] = ()
    """BARs (6: the ROM) in the order in which they came to decode where they do: of two that
    overlap the later wins. Empty: none overlaps another."""
    grown: Collection[int] = ()
    """BARs below a page that have been on a page boundary since the start: their container
    keeps the size of a page, wherever they go (``vfio_sub_page_bar_update_mapping()``)."""
    by_power: Mapping[int, bool] = field(default_factory=dict)
    """BARs below a page that came to decode by a change of the power state, which only QEMU's
    PCI core sees (10.0): whether they filled a page when it last looked at them."""
    let_through: Mapping[Space, tuple[AddressRange, ...]] | None = None
    """What the bridges above pass on, by space; None: everything."""

    @property
    def prefix(self) -> str:
        """Prefix of region names."""
        return self.name or str(self.function.bdf)

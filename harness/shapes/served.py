"""The two faces of a shape: the device that is served, and the case that is judged."""

from __future__ import annotations

from typing import Final

from harness.device.device import Device
from harness.device.spec import BarSpec, ExpressSpec, MsiSpec, MsixSpec, PowerSpec
from harness.model.expectation import ROM_BAR
from harness.model.pci import Bdf, Capability, MsixCapability, PciFunction
from harness.model.version import KernelVersion, QemuVersion
from harness.model.vfio.case import Transport, VfioCase
from harness.model.vfio.mapping import RegionFacts
from harness.shapes.programming import POWER, Programmer
from harness.shapes.shape import Shape, ShapeBar

_NOWHERE: Final = Bdf(0, 0, 0, 0)
_NO_KERNEL: Final = KernelVersion(0, 0)
"""No kernel stands between QEMU and a vfio-user server."""


def device_of(shape: Shape) -> Device:
    """Return the device that *shape* describes, to be served.

    :raise ConfigError: no configuration space can say such a thing.
    """
    return _ShapeDevice(shape)


class _ShapeDevice(Device):
    def __init__(self, shape: Shape) -> None:
        self.id = shape.id
        self.class_code = shape.class_code
        self.bars = tuple(
            BarSpec(bar.index, bar.kind, bar.size, bar.prefetchable, bar.direct)
            for bar in shape.bars
        )
        if shape.msix is not None:
            self.msix = msix_spec(shape)
        if shape.msi:
            self.msi = MsiSpec(shape.msi)
        if shape.express:
            self.express = ExpressSpec()
        if shape.power:
            self.power = PowerSpec(at=POWER)
        self.rom = bytes(shape.rom_size)
        super().__init__()


def msix_spec(shape: Shape) -> MsixSpec:
    """Return the MSI-X of a shape that has it, as devices declare it."""
    assert shape.msix is not None
    msix = shape.msix
    return MsixSpec(
        msix.vectors,
        msix.table_bar,
        msix.table_offset,
        msix.pba_bar,
        msix.pba_offset,
        mappable=msix.mappable,
    )


def function_of(shape: Shape) -> PciFunction:
    """Return *shape* as a PCI function."""
    msix = shape.msix
    return PciFunction(
        bdf=_NOWHERE,
        id=shape.id,
        class_code=shape.class_code,
        bars=tuple(bar.bar for bar in shape.bars),
        msix=None
        if msix is None
        else MsixCapability(
            0x40, msix.vectors, msix.table_bar, msix.table_offset, msix.pba_bar, msix.pba_offset
        ),
        capabilities=(Capability(0x10, 0x40),) if shape.express else (),
        rom_size=shape.rom_size,
    )


def region_facts(shape: Shape, bar: ShapeBar) -> RegionFacts:
    """Return what the server says of the region of *bar*."""
    msix = shape.msix
    return RegionFacts(
        mappable=bool(bar.direct),
        msix_mappable=msix is not None and msix.mappable and msix.table_bar == bar.index,
        sparse=None if isinstance(bar.direct, bool) else bar.direct,
    )


def case_of(
    shape: Shape, *, qemu: QemuVersion, name: str, programmer: Programmer | None = None
) -> VfioCase:
    """Return what the map of *shape* follows from, for the oracle.

    :param name: of the device in its machine: id and name of its socket.
    :param programmer: what was written so far; None: nothing decodes.
    """
    places = {} if programmer is None else programmer.decoding.places
    return VfioCase(
        function=function_of(shape),
        kernel=_NO_KERNEL,
        qemu=qemu,
        bar_addresses={bar: at for bar, at in places.items() if bar != ROM_BAR},
        regions={bar.index: region_facts(shape, bar) for bar in shape.bars},
        rom_address=places.get(ROM_BAR),
        name=f"vfio-user:{name}",
        device_id=name,
        transport=Transport.USER,
        order=tuple(places),
        by_power={} if programmer is None else dict(programmer.decoding.by_power),
        grown=() if programmer is None else tuple(sorted(programmer.decoding.grown)),
        let_through=None if programmer is None else programmer.let_through,
    )

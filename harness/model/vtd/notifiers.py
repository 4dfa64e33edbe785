"""What IOMMU devices say to those who follow their mappings: vhost and vfio.

A follower registers a notifier with the memory region through which its device reaches memory:
vfio one that hears of new mappings (MAP), vhost one that hears of what goes away (UNMAP, or
DEVIOTLB_UNMAP once the guest has enabled ATS). The region may refuse (QEMU
``notify_flag_changed`` in ``hw/i386/intel_iommu.c``, ``hw/virtio/virtio-iommu.c`` and
``hw/arm/smmuv3.c``). vhost takes that for fatal, also when a guest provokes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from harness.model.version import QemuVersion
from harness.model.vtd.properties import DEVICES, Release, Value, arguments, lacking
from harness.model.vtd.refusals import RefusalCase, Words


@dataclass(frozen=True, slots=True)
class VhostCase:
    """A vhost device below some IOMMU, and what becomes of it when its driver starts it.

    :param driver: of the IOMMU.
    :param options: of it.
    :param ats: the driver enables address translation services first.
    :param words: of the refusal; None: it is accepted.
    :param since: the release that brought the refusal.
    """

    name: str
    rule: str
    driver: str
    words: str | None
    options: Mapping[str, Value] = field(default_factory=dict)
    ats: bool = False
    since: Release = (0, 0)

    def expected(self, version: QemuVersion) -> str | None:
        """Return the words of *version*; None: it accepts."""
        return self.words if version.has(*self.since) else None

    def arguments(self, properties: Set[str]) -> Mapping[str, Value]:
        """Return the options as a build whose IOMMU has *properties* takes them."""
        known = DEVICES.get(self.driver, {})
        said = {name: value for name, value in self.options.items() if name in known}
        rest = {name: value for name, value in self.options.items() if name not in known}
        return {**arguments(self.driver, said, properties), **rest}

    def lacking(self, properties: Set[str]) -> str:
        """Say what a build with *properties* cannot be told; empty: nothing."""
        known = DEVICES.get(self.driver, {})
        said = {name: value for name, value in self.options.items() if name in known}
        return lacking(self.driver, said, properties) if said else ""


NO_SNOOP_CONTROL = "Snoop Control with vhost or VFIO is not supported"
NO_CACHING_MODE = "requires caching mode"
NO_DEVICE_IOTLB = "requires device IOTLB mode"
FIRST_STAGE = RefusalCase(
    "first stage",
    "VTD-24",
    (
        Words((10, 0), "host device is uncompatible with stage-1 translation"),
        Words((11, 0), "Need IOMMUFD backend when x-flts=on"),
        Words((0, 0), "Need IOMMUFD backend when fsts=on", having="fsts"),
    ),
)
"""What is said to a function that is assigned by a group, below a unit with a first stage."""

_TRANSLATES = {"boot-bypass": False}
"""A virtio-iommu whose endpoints are translated before a driver attaches them."""

VHOST_CASES = (
    VhostCase("intel-iommu", "VTD-21", "intel-iommu", None),
    VhostCase(
        "intel-iommu, ATS", "VTD-21", "intel-iommu",
        f"device 01.00.0 {NO_DEVICE_IOTLB}", ats=True, since=(8, 0),
    ),
    VhostCase(
        "intel-iommu device-iotlb, ATS", "VTD-21", "intel-iommu", None,
        {"device-iotlb": True}, ats=True,
    ),
    VhostCase(
        "intel-iommu snoop-control", "VTD-22", "intel-iommu", NO_SNOOP_CONTROL,
        {"snoop-control": True}, since=(7, 0),
    ),
    VhostCase("virtio-iommu", "VIO-04", "virtio-iommu-pci", None, _TRANSLATES),
    VhostCase(
        "virtio-iommu, ATS", "VIO-04", "virtio-iommu-pci",
        "Virtio-iommu does not support dev-iotlb yet", _TRANSLATES, ats=True,
    ),
)  # fmt: skip


def other_way(case: VhostCase, version: QemuVersion) -> VhostCase:
    """Return a case with the same IOMMU that ends the other way in *version*."""
    refused = case.expected(version) is None
    return next(
        other
        for other in VHOST_CASES
        if (other.expected(version) is not None) == refused and other.driver == case.driver
    )

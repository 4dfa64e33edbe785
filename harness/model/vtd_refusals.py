"""What QEMU's IOMMU devices refuse, by version, with the words they use.

Sources are in the catalogue under each rule (``hw/i386/x86-iommu.c``, ``hw/i386/pc.c``,
``hw/i386/intel_iommu.c:vtd_decide_config()``, ``hw/virtio/virtio-iommu*.c``).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from harness.model.version import QemuVersion

Value = str | int | bool
Release = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Words:
    """Words of a refusal, used from one release on; None: it is no longer refused."""

    since: Release
    text: str | None


@dataclass(frozen=True, slots=True)
class RefusalCase:
    """A command line that QEMU must refuse, for as long as *words* says.

    :param options: of the IOMMU device.
    :param words: oldest first. Releases before the first are not known to refuse it.
    :param second: driver of another IOMMU behind the first.
    :param behind_port: the device is on a root port, not on the root bus.
    :param kvm_only: without KVM there is nothing to refuse.
    """

    name: str
    rule: str
    words: tuple[Words, ...]
    options: Mapping[str, Value] = field(default_factory=dict)
    machine: str = "q35"
    machine_options: Mapping[str, Value] = field(
        default_factory=lambda: {"kernel-irqchip": "split"}
    )
    driver: str = "intel-iommu"
    second: str = ""
    behind_port: bool = False
    kvm_only: bool = False
    accel: str = ""
    """What runs it, where that is the point; empty: what runs machines on this host."""

    def expected(
        self, version: QemuVersion, properties: Set[str], *, kvm: bool = True
    ) -> str | None:
        """Return the words this QEMU must use; None if it must accept.

        :param properties: what this build's device has: a property it lacks is refused for
            that reason (VTD-27), whatever its version.
        """
        if self.kvm_only and not kvm:
            return None
        for name in self.options:
            if name not in properties:
                return f"Property '{self.driver}.{name}' not found"
        said: str | None = None
        for words in self.words:
            if version.has(*words.since):
                said = words.text
        return said


ALWAYS: Release = (0, 0)


def _always(text: str) -> tuple[Words, ...]:
    return (Words(ALWAYS, text),)


_NOT_HERE = (
    Words(ALWAYS, "not supported by IOMMU"),
    # Dynamic sysbus devices were checked against the machine first from 3.0 on.
    Words((3, 0), "Parameter 'driver' expects a dynamic sysbus device type for the machine"),
)
_MULTIPLE = _always("QEMU does not support multiple vIOMMUs for x86 yet.")
_ON = {"kernel-irqchip": "on"}

REFUSALS = (
    RefusalCase("pc", "VTD-01", _NOT_HERE, machine="pc"),
    RefusalCase("microvm", "VTD-01", _NOT_HERE, machine="microvm"),
    RefusalCase(
        "intremap with a full irqchip", "VTD-02",
        _always(
            "Interrupt Remapping cannot work with kernel-irqchip=on, please use 'split|off'."
        ),
        {"intremap": True}, machine_options=_ON, kvm_only=True,
    ),
    RefusalCase(
        "eim without intremap", "VTD-05",
        _always("eim=on cannot be selected without intremap=on"),
        {"eim": True, "intremap": False},
    ),
    RefusalCase(
        "eim without KVM", "VTD-06",
        (Words((2, 8), "eim=on requires accel=kvm,kernel-irqchip=split"), Words((9, 0), None)),
        {"eim": True, "intremap": True}, machine_options={}, accel="tcg",
    ),
    RefusalCase(
        "aw-bits 40", "VTD-08",
        (
            Words(ALWAYS, "Supported values for aw-bits are: 39, 48"),
            Words((10, 0), "Legacy mode: supported values for aw-bits are: 39, 48"),
        ),
        {"aw-bits": 40},
    ),
    RefusalCase(
        "aw-bits 40 in scalable mode", "VTD-08",
        (
            Words(ALWAYS, "Supported values for aw-bits are: 39, 48"),
            Words((10, 0), "Scalable mode(flts=off): supported values for aw-bits are: 39, 48"),
        ),
        {"aw-bits": 40, "x-scalable-mode": True},
    ),
    RefusalCase(
        "aw-bits 39 with a first stage", "VTD-09",
        (
            Words((10, 0), "Scalable mode(flts=on): supported value for aw-bits is: 48"),
            Words((11, 0), "Scalable mode(x-flts=on): supported value for aw-bits is: 48"),
        ),
        {"aw-bits": 39, "x-scalable-mode": True, "x-flts": True},
    ),
    RefusalCase(
        "first stage outside of scalable mode", "VTD-11",
        _always("x-flts is only available in scalable mode"),
        {"x-flts": True},
    ),
    RefusalCase(
        "scalable mode without draining", "VTD-12",
        _always("Need to set dma_drain for scalable mode"),
        {"x-scalable-mode": True, "dma-drain": False},
    ),
    RefusalCase(
        "PASID outside of scalable mode", "VTD-13",
        _always("Need to set scalable mode for PASID"),
        {"x-pasid-mode": True},
    ),
    RefusalCase(
        "PASID with a device TLB", "VTD-14",
        (
            Words((7, 2), "PASID based device IOTLB is not supported"),
            Words((11, 0), None),
        ),
        {"x-scalable-mode": True, "x-pasid-mode": True, "device-iotlb": True},
    ),
    RefusalCase("two of a kind", "VTD-15", _MULTIPLE, second="intel-iommu"),
    RefusalCase("two kinds", "VIO-20", _MULTIPLE, second="virtio-iommu-pci"),
    RefusalCase(
        "unknown property", "VTD-27",
        _always("Property 'intel-iommu.no-such-property' not found"),
        {"no-such-property": True},
    ),
    RefusalCase(
        "accl", "VTD-62",
        # Releases print the full name of the machine type that q35 stands for.
        _always("machine.accl' not found"),
        machine_options={"accl": "kvm"},
    ),
    RefusalCase(
        "virtio-iommu behind a port", "VIO-01",
        _always("virtio-iommu-pci must be plugged on the root bus"),
        driver="virtio-iommu-pci", behind_port=True,
    ),
    RefusalCase(
        "virtio-iommu with aw-bits 31", "VIO-03",
        _always("aw-bits must be within [32,64]"),
        {"aw-bits": 31}, driver="virtio-iommu-pci",
    ),
)  # fmt: skip
"""Every case; `counterpart` has what ends the other way."""

_ACCEPTED = {
    case.driver: case
    for case in (
        RefusalCase("accepted", "", (), {"intremap": True, "eim": True, "caching-mode": True}),
        RefusalCase("accepted", "", (), driver="virtio-iommu-pci"),
    )
}
_REFUSED = RefusalCase("refused", "", (), {"eim": True, "intremap": False})


def counterpart(case: RefusalCase, words: str | None) -> RefusalCase:
    """Return a set-up that ends the other way: accepted if *words* are expected of *case*."""
    return _REFUSED if words is None else _ACCEPTED[case.driver]


def without_caching_mode(version: QemuVersion) -> str:
    """Return what QEMU says to a vfio-pci device below an intel-iommu without caching mode.

    When the machine starts (VTD-17, VTD-18); for a hot-added one see `HOT_ADDED`.
    """
    if version.has(10, 2):
        return (
            "Failed to set vIOMMU: Device assignment is not allowed without enabling"
            " caching-mode=on for Intel IOMMU."
        )
    value = "on" if version.has(4, 0) else "1"
    return f"We need to set caching-mode={value} for intel-iommu"


HOT_ADDED = "Device assignment is not allowed without enabling caching-mode=on for Intel IOMMU."
"""What QEMU says to a hot-added one, since 4.2 (VTD-19)."""

PROPERTIES: Mapping[str, tuple[Release, Release | None]] = {
    "eim": ((2, 8), None),
    "caching-mode": ((2, 9), None),
    "intremap": ((2, 10), None),
    "device-iotlb": ((2, 10), None),
    "pt": ((2, 10), None),
    "x-aw-bits": ((2, 12), (4, 0)),
    "aw-bits": ((4, 0), None),
    "x-scalable-mode": ((4, 0), None),
    "dma-drain": ((4, 0), None),
    "snoop-control": ((7, 0), None),
    "dma-translation": ((7, 1), None),
    "x-pasid-mode": ((7, 2), None),
    "stale-tm": ((9, 2), None),
    "x-flts": ((10, 0), None),
    "fs1gp": ((10, 0), None),
    "svm": ((11, 0), None),
    "x-buggy-eim": ((2, 8), (11, 0)),
}
"""Properties of intel-iommu: the release that brought each and the one that took it (VTD-26)."""


def wrong_properties(found: Set[str], version: QemuVersion) -> tuple[str, ...]:
    """Say which properties of *found* should not be there, and which should and are not."""
    wrong = []
    for name, (since, until) in PROPERTIES.items():
        expected = version.has(*since) and not (until is not None and version.has(*until))
        if expected != (name in found):
            wrong.append(f"{name} {'is missing' if expected else 'is there'}")
    return tuple(wrong)

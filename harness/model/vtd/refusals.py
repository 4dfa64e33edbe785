"""What QEMU's IOMMU devices refuse, by version, with the words they use.

Sources are in the catalogue under each rule (``hw/i386/x86-iommu.c``, ``hw/i386/pc.c``,
``hw/i386/intel_iommu.c:vtd_decide_config()``, ``hw/virtio/virtio-iommu*.c``).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from harness.model.version import QemuVersion
from harness.model.vtd.properties import Release, Value, arguments, lacking


@dataclass(frozen=True, slots=True)
class Words:
    """Words of a refusal, used from one release on; None: it is no longer refused.

    :param having: a property of the device: only builds that have it say so, and all of them.
    """

    since: Release
    text: str | None
    having: str = ""


@dataclass(frozen=True, slots=True)
class RefusalCase:
    """A command line that QEMU must refuse, for as long as *words* says.

    :param options: of the IOMMU device, by the names of `harness.model.vtd.properties`.
    :param words: oldest first. Releases before the first are not known to refuse it.
    :param second: driver of another IOMMU behind the first.
    :param behind_port: the device is on a root port, not on the root bus.
    :param kvm_only: without KVM there is nothing to refuse.
    :param unknown: an option that no build has.
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
    unknown: str = ""
    accel: str = ""
    """What runs it, where that is the point; empty: what runs machines on this host."""

    def lacking(self, properties: Set[str]) -> str:
        """Say what a build with these *properties* of the device cannot be told; empty: nothing.

        Such a build refuses the name of the property, so the case cannot be tried there.
        """
        return lacking(self.driver, self.options, properties)

    def arguments(self, properties: Set[str]) -> Mapping[str, Value]:
        """Return the device's options as a build with *properties* takes them."""
        known = arguments(self.driver, self.options, properties)
        return known | ({self.unknown: True} if self.unknown else {})

    def expected(
        self, version: QemuVersion, properties: Set[str], *, kvm: bool = True
    ) -> str | None:
        """Return the words this QEMU must use; None if it must accept.

        :param properties: what this build's device has, nothing `lacking`.
        """
        if self.kvm_only and not kvm:
            return None
        said: str | None = None
        for words in self.words:
            if version.has(*words.since) and (not words.having or words.having in properties):
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

PASID_BITS = 20
"""The largest PASID that PCIe allows (6.0, 6.20); builds with a switch take it for on."""

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
            Words(
                ALWAYS, "Scalable mode(fsts=off): supported values for aw-bits are: 39, 48",
                having="fsts",
            ),
        ),
        {"aw-bits": 40, "scalable-mode": True},
    ),
    RefusalCase(
        "aw-bits 39 with a first stage", "VTD-09",
        (
            Words((10, 0), "Scalable mode(flts=on): supported value for aw-bits is: 48"),
            Words((11, 0), "Scalable mode(x-flts=on): supported value for aw-bits is: 48"),
            Words(
                ALWAYS, "Scalable mode(fsts=on): supported value for aw-bits is: 48",
                having="fsts",
            ),
        ),
        {"aw-bits": 39, "scalable-mode": True, "fsts": True},
    ),
    RefusalCase(
        "first stage outside of scalable mode", "VTD-11",
        (
            Words(ALWAYS, "x-flts is only available in scalable mode", having="x-flts"),
            Words(ALWAYS, "fsts is only available in scalable mode", having="fsts"),
        ),
        {"fsts": True},
    ),
    RefusalCase(
        "scalable mode without draining", "VTD-12",
        _always("Need to set dma_drain for scalable mode"),
        {"scalable-mode": True, "dma-drain": False},
    ),
    RefusalCase(
        "PASID outside of scalable mode", "VTD-13",
        _always("Need to set scalable mode for PASID"),
        {"pasid-bits": PASID_BITS},
    ),
    RefusalCase(
        "PASID with a device TLB", "VTD-14",
        (
            Words((7, 2), "PASID based device IOTLB is not supported"),
            Words((11, 0), None),
        ),
        {"scalable-mode": True, "pasid-bits": PASID_BITS, "device-iotlb": True},
    ),
    RefusalCase("two of a kind", "VTD-15", _MULTIPLE, second="intel-iommu"),
    RefusalCase("two kinds", "VIO-20", _MULTIPLE, second="virtio-iommu-pci"),
    RefusalCase(
        "unknown property", "VTD-27",
        _always("Property 'intel-iommu.no-such-property' not found"),
        unknown="no-such-property",
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


@dataclass(frozen=True, slots=True)
class AssignmentRefusal:
    """How QEMU refuses a vfio-pci device below an intel-iommu without caching mode.

    When the machine starts; for a hot-added one see `HOT_ADDED`.

    :param words: oldest first.
    :param until: the release that refuses by another rule; None: the newest goes by this one.
    """

    rule: str
    words: tuple[Words, ...]
    until: Release | None = None

    def expected(self, version: QemuVersion) -> str | None:
        """Return the words of *version*; None: it goes by another rule."""
        if self.until is not None and version.has(*self.until):
            return None
        said = [words.text for words in self.words if version.has(*words.since)]
        return said[-1] if said else None

    @property
    def builds(self) -> str:
        """Say which builds go by this rule."""
        before = f", before {self.until[0]}.{self.until[1]}" if self.until else ""
        return "QEMU {}.{} and later".format(*self.words[0].since) + before


WITHOUT_CACHING_MODE = (
    AssignmentRefusal(
        "VTD-17",
        (
            Words((2, 10), "We need to set caching-mode=1 for intel-iommu"),
            Words((4, 0), "We need to set caching-mode=on for intel-iommu"),
        ),
        until=(10, 2),
    ),
    AssignmentRefusal(
        "VTD-18",
        (
            Words(
                (10, 2),
                "Failed to set vIOMMU: Device assignment is not allowed without enabling"
                " caching-mode=on for Intel IOMMU.",
            ),
        ),
    ),
)

HOT_ADDED = "Device assignment is not allowed without enabling caching-mode=on for Intel IOMMU."
"""What QEMU says to a hot-added one, since 4.2 (VTD-19)."""

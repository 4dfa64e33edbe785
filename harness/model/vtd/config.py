"""One way to set up QEMU's intel-iommu, and the registers that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from harness.model.version import QemuVersion
from harness.model.vtd.expected import (
    Irqchip,
    Prediction,
    default_aw_bits,
    expected_cap,
    expected_ecap,
    extended_interrupts,
    remaps_interrupts,
)
from harness.model.vtd.properties import Value, arguments, lacking


@dataclass(frozen=True, slots=True)
class VtdConfig:
    """Options of ``-device intel-iommu`` on a machine with a certain interrupt controller.

    :param options: only what is said, by the names of `harness.model.vtd.properties`; QEMU's
        defaults fill the rest.
    :param says_irqchip: ``kernel-irqchip=`` is on the command line; without it *irqchip* is
        what QEMU must choose by itself.
    :param present: False: the same machine without an intel-iommu.
    """

    irqchip: Irqchip = Irqchip.SPLIT
    options: tuple[tuple[str, Value], ...] = ()
    machine: str = "q35"
    says_irqchip: bool = True
    present: bool = True

    @classmethod
    def of(cls, irqchip: Irqchip = Irqchip.SPLIT, **options: Value) -> VtdConfig:
        """Return one; ``_`` in the name of an option stands for ``-``."""
        return cls(irqchip, tuple((k.replace("_", "-"), v) for k, v in options.items()))

    def having(self, **options: Value) -> VtdConfig:
        """Return a copy with these options set otherwise."""
        changed = dict(self.options) | {k.replace("_", "-"): v for k, v in options.items()}
        return replace(self, options=tuple(changed.items()))

    @property
    def device_options(self) -> Mapping[str, Value]:
        """What is said, by meaning."""
        return dict(self.options)

    def arguments(self, properties: Set[str]) -> Mapping[str, Value]:
        """For the command line of a build whose intel-iommu has *properties*."""
        return arguments("intel-iommu", self.device_options, properties)

    def lacking(self, properties: Set[str]) -> str:
        """Say what a build whose intel-iommu has *properties* cannot be told; empty: nothing."""
        return lacking("intel-iommu", self.device_options, properties)

    @property
    def machine_options(self) -> Mapping[str, Value]:
        """For the command line."""
        if self.irqchip is Irqchip.TCG or not self.says_irqchip:
            return {}
        return {"kernel-irqchip": self.irqchip.value}

    @property
    def label(self) -> str:
        """For ids of tests and directories."""
        words = [self.irqchip.value if self.says_irqchip else "default"]
        words += [] if self.machine == "q35" else [self.machine]
        words += [] if self.present else ["no-iommu"]
        for name, value in self.options:
            words.append(f"{name}={'on' if value is True else 'off' if value is False else value}")
        return ",".join(words)

    def _flag(self, name: str, default: bool) -> bool:
        return bool(self.device_options.get(name, default))

    def _maybe(self, name: str) -> bool | None:
        value = self.device_options.get(name)
        return None if value is None else bool(value)

    @property
    def remaps(self) -> bool:
        """Whether interrupt remapping is in force (VTD-03)."""
        return remaps_interrupts(self._maybe("intremap"), self.irqchip)

    @property
    def extended(self) -> bool:
        """Whether EIM is in force (VTD-07)."""
        return extended_interrupts(self._maybe("eim"), self.remaps, self.irqchip)

    def aw_bits(self, version: QemuVersion) -> int:
        """Return the address width in force (VTD-10)."""
        said = self.device_options.get("aw-bits")
        if said is not None:
            return int(said)
        _, _, of = self.machine.rpartition("-")
        return default_aw_bits(version if self.machine == "q35" else QemuVersion.parse(of))

    def cap(self, version: QemuVersion) -> Prediction:
        """Return what CAP must read."""
        return expected_cap(
            version,
            aw_bits=self.aw_bits(version),
            caching_mode=self._flag("caching-mode", False),
            dma_drain=self._flag("dma-drain", True),
            dma_translation=self._flag("dma-translation", True),
            first_stage=self._flag("fsts", False),
        )

    def ecap(self, properties: Set[str]) -> Prediction:
        """Return what ECAP must read of a build whose intel-iommu has *properties*."""
        return expected_ecap(
            interrupt_remapping=self.remaps,
            eim=self.extended,
            device_iotlb=self._flag("device-iotlb", False),
            snoop_control=self._flag("snoop-control", False),
            pass_through=self._flag("pt", True),
            scalable=self._flag("scalable-mode", False),
            first_stage=self._flag("fsts", False),
            pasid_bits=int(self.device_options.get("pasid-bits", 0)),
            tells_pasid_bits="pasid-bits" in properties,
        )

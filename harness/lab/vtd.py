"""Looking at paused machines with an intel-iommu, each set-up once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.host.accelerator import Accel
from harness.host.host import Host
from harness.machine.command import MachineSpec, Sockets, command_line
from harness.machine.machine import Machine
from harness.machine.outcome import Outcome, outcome_of_launch
from harness.machine.vtd import (
    ALONE,
    SAME_SLOT,
    VtdRegisters,
    read_registers,
    set_bus_master,
    vtd_spec,
)
from harness.model.memory_map import MemoryMap
from harness.model.memory_tree import MemoryTree
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.expected import Irqchip


@dataclass(frozen=True, slots=True)
class Observed:
    """A paused machine, before its firmware ran."""

    config: VtdConfig
    registers: VtdRegisters | None
    """None: it has no intel-iommu."""
    memory_map: MemoryMap
    map_as_master: MemoryMap
    """With the bus master bit of `harness.machine.vtd.ALONE` set."""
    map_released: MemoryMap
    """With that bit cleared again."""
    tree: MemoryTree
    """With disabled regions."""
    slots: Mapping[str, int]
    """``DD.F`` to the number of functions there, over all buses."""
    properties: frozenset[str]
    """Of the type intel-iommu, by ``device-list-properties``."""
    evidence: Path


def slots_of(machine: Machine) -> Counter[str]:
    """Count functions by ``DD.F``: ``query-pci`` does not enter buses without a number."""
    root = (function.bdf.slot for function in machine.functions() if function.bdf.bus == 0)
    return Counter(root) + Counter({"00.0": len(SAME_SLOT)})


def accelerator_for(host: Host, irqchip: Irqchip) -> str | None:
    """Return the value of ``-accel`` for *irqchip*; None if this host cannot run it."""
    if irqchip is Irqchip.TCG:
        return "tcg"
    return host.accelerator.option if host.accelerator.accel is Accel.KVM else None


def properties_of(host: Host, driver: str = "intel-iommu") -> frozenset[str]:
    """Return what *driver* has in the QEMU under test; empty: there is no such device."""
    return host.qemu.features.device_properties(driver)


class Observer:
    """Starts each machine once and remembers what came of it.

    :param make_evidence: makes a directory by name.
    """

    def __init__(self, host: Host, make_evidence: Callable[[str], Path]) -> None:
        self.host = host
        self._make_evidence = make_evidence
        self._observed: dict[VtdConfig, Observed] = {}
        self._outcomes: dict[str, Outcome] = {}

    def observe(self, config: VtdConfig, *, accel: str) -> Observed:
        """Start a paused machine with *config*, look at it, end it."""
        if config not in self._observed:
            self._observed[config] = self._look(config, accel)
        return self._observed[config]

    def _look(self, config: VtdConfig, accel: str) -> Observed:
        evidence = self._make_evidence(f"vtd-{config.label}")
        spec = vtd_spec(config, accel=accel, properties=properties_of(self.host))
        with self.host.launch(spec, evidence=evidence) as machine:
            listed = machine.qmp.execute("device-list-properties", {"typename": "intel-iommu"})
            before = machine.memory_map()
            registers = read_registers(machine) if config.present else None
            tree = machine.memory_tree(disabled=True)
            bdf = next(f.bdf for f in machine.functions() if f.qdev_id == ALONE.id)
            set_bus_master(machine, bdf, on=True)
            as_master = machine.memory_map(keep="memory-map-as-master")
            set_bus_master(machine, bdf, on=False)
            return Observed(
                config,
                registers,
                before,
                as_master,
                machine.memory_map(keep="memory-map-released"),
                tree,
                slots_of(machine),
                frozenset(str(entry["name"]) for entry in listed),
                evidence,
            )

    def outcome(self, spec: MachineSpec) -> Outcome:
        """Start *spec*, which QEMU may refuse; end it."""
        key = " ".join(command_line(spec, Sockets("")))
        if key not in self._outcomes:
            evidence = self._make_evidence(f"outcome-{len(self._outcomes)}")
            self._outcomes[key] = outcome_of_launch(
                lambda: self.host.launch(spec, evidence=evidence)
            )
        return self._outcomes[key]

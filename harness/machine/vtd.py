"""Machines with an intel-iommu: starting them, reading their registers, trying refused ones."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from harness.machine.command import Device, MachineSpec
from harness.machine.machine import Machine
from harness.machine.qtest import Qtest
from harness.model.pci import Bdf
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.refusals import RefusalCase
from harness.model.vtd.registers import CAP, ECAP, FSTS, GSTS, REGISTERS_BASE, VER
from harness.model.vtd.tables import ROOT_TABLE, Translation, translation_of
from harness.parse.hmp import parse_examine
from harness.parse.trace_log import TraceEvent, parse_trace_log

PORTS = (
    Device("pcie-root-port", "port0", "pcie.0", "0x8", {"chassis": 1, "slot": 1}),
    Device("pcie-root-port", "port1", "pcie.0", "0x9", {"chassis": 2, "slot": 2}),
    Device("pcie-root-port", "port2", "pcie.0", "0xa", {"chassis": 3, "slot": 3}),
)
"""The last one is free, for hot-adds."""

SAME_SLOT = (
    Device("pci-testdev", "left", "port0", "0"),
    Device("pci-testdev", "right", "port1", "0"),
)
"""Two functions whose slots are equal and whose buses are not (VTD-43)."""

MEMORY_MIB = 16
"""No guest runs in these machines; an assigned device pins all of it at the start."""

_GLOBAL_COMMAND = 0x18
_SET_ROOT_TABLE, _TRANSLATE = 1 << 30, 1 << 31

ALONE = Device("edu", "alone", "pcie.0", "0xc")
"""The only edu: its own address space is called by the driver's name."""


@dataclass(frozen=True, slots=True)
class VtdRegisters:
    """Registers of the unit at one moment."""

    version: int
    cap: int
    ecap: int
    global_status: int
    fault_status: int

    def __str__(self) -> str:
        return (
            f"ver {self.version:#x} cap {self.cap:#018x} ecap {self.ecap:#018x}"
            f" gsts {self.global_status:#010x} fsts {self.fault_status:#010x}"
        )


def read_registers(machine: Machine) -> VtdRegisters:
    """Read the registers as the guest would, with ``xp``.

    :raise ParseError: nothing answers there.
    """

    def read(offset: int, width: int) -> int:
        address = REGISTERS_BASE + offset
        letter = "g" if width == 64 else "w"
        return parse_examine(machine.qmp.hmp(f"xp /1{letter}x {address:#x}")).at(address)

    return VtdRegisters(*(read(r.offset, r.width) for r in (VER, CAP, ECAP, GSTS, FSTS)))


def read_translation(machine: Machine, function: Bdf) -> Translation | None:
    """Follow the tables that the guest made, in its memory; see `translation_of`.

    :raise ParseError: they lead to where nothing answers.
    """

    def read(address: int) -> int:
        return parse_examine(machine.qmp.hmp(f"xp /1gx {address:#x}")).at(address)

    return translation_of(read, read(REGISTERS_BASE + ROOT_TABLE), function)


def vtd_spec(config: VtdConfig, *, accel: str, properties: Set[str]) -> MachineSpec:
    """Return a paused machine with *config* and functions on three buses.

    :param accel: what runs its instructions; the interrupt controller of *config* fits it.
    :param properties: what the build's intel-iommu has; *config* lacks nothing there.
    """
    iommu = Device("intel-iommu", "iommu", options=config.arguments(properties))
    return MachineSpec(
        "vtd",
        accel=accel,
        machine=config.machine,
        machine_options=config.machine_options,
        memory_mib=MEMORY_MIB,
        iommu=iommu if config.present else None,
        devices=(*PORTS, *SAME_SLOT, ALONE),
        paused=True,
    )


def refusal_spec(case: RefusalCase, *, accel: str, properties: Set[str]) -> MachineSpec:
    """Return the machine of *case*; paused, should QEMU accept it.

    :param properties: what the build's IOMMU device has.
    """
    bus = "port0" if case.behind_port else ""
    iommu = Device(case.driver, "iommu", bus, "", case.arguments(properties))
    spec = MachineSpec(
        "refused",
        accel=case.accel or accel,
        machine=case.machine,
        machine_options=case.machine_options,
        memory_mib=MEMORY_MIB,
        iommu=iommu,
        paused=True,
    )
    if case.behind_port:
        return replace(spec, iommu=None, devices=(PORTS[0], iommu))
    return spec.adding(Device(case.second, "second")) if case.second else spec


def set_bus_master(machine: Machine, bdf: Bdf, *, on: bool) -> None:
    """Write the command register of *bdf* through the ports of configuration mechanism 1.

    Works while the vCPUs are stopped; *bdf* is on the root bus. Decoding is left off.
    """
    register = bdf.device << 11 | bdf.function << 8 | 0x04
    machine.qmp.hmp(f"o /w 0xcf8 {0x8000_0000 | register:#x}")
    machine.qmp.hmp(f"o /h 0xcfc {0x4 if on else 0:#x}")


def enable_translation(qtest: Qtest) -> None:
    """Turn translation on as a driver would, with a root table of zeros: no DMA is mapped.

    The machine is new: its memory is zero, and so is the address of the table (VT-d 11.4.4).
    """
    for command in (_SET_ROOT_TABLE, _TRANSLATE):
        qtest.write(REGISTERS_BASE + _GLOBAL_COMMAND, command)


def traced(machine: Machine) -> tuple[TraceEvent, ...]:
    """Return all trace events of *machine* so far, those of ``-trace`` included."""
    text = machine.place.read(machine.sockets.trace).decode(errors="replace")
    return tuple(parse_trace_log(text))


def reset_and_stop(machine: Machine) -> None:
    """Stop the vCPUs and reset the machine: devices are new, no instruction runs."""
    machine.qmp.execute("set-action", {"reboot": "reset"})  # undoes -no-reboot
    machine.qmp.execute("stop")
    since = machine.qmp.mark()
    machine.qmp.execute("system_reset")
    machine.qmp.wait_event("RESET", timeout=30, since=since, guards=(machine.check,))

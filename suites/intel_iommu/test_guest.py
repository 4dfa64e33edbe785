"""A Linux guest that uses its intel-iommu: what it finds, what QEMU does for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.guest.acpi import acpi_table
from harness.guest.block import BlockDevice
from harness.guest.fault_log import FaultLog
from harness.guest.guest import Guest
from harness.guest.stray import stray_write
from harness.guest.system import System
from harness.host.host import Host
from harness.lab.hosts import DISK_SEED
from harness.lab.nested import Nested
from harness.machine.machine import Machine
from harness.machine.vtd import VtdRegisters, read_registers, reset_and_stop, traced
from harness.model.memory_map import MemoryMap
from harness.model.memory_tree import MemoryTree
from harness.model.pci import Bdf
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.registers import REGISTERS_BASE, Capability, GlobalStatus, Version
from harness.parse.dmar import parse_dmar
from harness.parse.dmesg import FaultKind, IommuBoot, iommu_boot
from harness.parse.iommu_fault import IommuFault
from harness.parse.trace_log import TraceEvent
from harness.testing import must_fail
from suites.intel_iommu.conftest import GUEST, Observe
from suites.intel_iommu.test_registers import PLAIN, registers
from suites.intel_iommu.test_views import nodes, vtd_blocks

UNIT = "/sys/class/iommu/dmar0/intel-iommu"
UNMAPPED = 0x6_6660_0000
STRAY = Bdf(0, 0, 0xD, 0)
"""Where the emulated function of the guest is that no driver has."""

NO_ENTRY = 0x7000
"""An index of the interrupt remapping table that Linux has not given to anybody."""

BLOCK = 64 * 1024


def message_address(index: int) -> int:
    """Return the address of a remappable interrupt message (VT-d 5.1.2.2)."""
    return 0xFEE0_0010 | (index & 0x7FFF) << 5 | (index >> 15) << 2


def os_of(nested: Nested) -> Guest:
    """Return the guest; there must be one."""
    assert nested.guest is not None
    return nested.guest


def boot_log(system: System) -> IommuBoot:
    """Return what the kernel said of its IOMMU."""
    return iommu_boot(system.kernel_log().splitlines())


@pytest.fixture
def guest(vtd_guest: Nested) -> Guest:
    """The guest that uses its intel-iommu."""
    return os_of(vtd_guest)


@pytest.fixture
def plain_guest(nested: Nested) -> Guest:
    """The resident guest: the same kernel, no vIOMMU."""
    return os_of(nested)


# -- what Linux finds -------------------------------------------------------------------------


def check_enabled(system: System) -> None:
    """The kernel used ``intel_iommu=on`` and found a unit at the base."""
    log = boot_log(system)
    assert log.enabled
    assert [unit.base for unit in log.units] == [REGISTERS_BASE]


@pytest.mark.rule("VTD-47")
def test_linux_turns_it_on(guest: Guest) -> None:
    """``intel_iommu=on`` is acknowledged, and the unit is found at fed90000."""
    check_enabled(guest)


@pytest.mark.negative_control("VTD-47")
def test_a_guest_without_is_noticed(plain_guest: Guest) -> None:
    """A guest without a vIOMMU fails the check."""
    with must_fail():
        check_enabled(plain_guest)


def check_log_has_registers(log: IommuBoot, seen: VtdRegisters) -> None:
    """The unit's line shows *seen*."""
    unit = log.unit()
    assert (unit.cap, unit.ecap) == (seen.cap, seen.ecap)


@pytest.mark.rule("VTD-48")
def test_log_shows_the_registers(vtd_guest: Nested, guest: Guest) -> None:
    """The kernel's line about the unit has the values that ``xp`` reads."""
    check_log_has_registers(boot_log(guest), read_registers(vtd_guest.machine))


@pytest.mark.negative_control("VTD-48")
def test_log_of_other_registers_is_noticed(guest: Guest, observe: Observe) -> None:
    """Registers of a machine without caching mode fail the check."""
    with must_fail():
        check_log_has_registers(boot_log(guest), registers(observe(PLAIN)))


def check_sysfs(system: System, seen: VtdRegisters) -> None:
    """Sysfs shows *seen*."""
    said = [system.read_text(f"{UNIT}/{name}").strip() for name in ("cap", "ecap", "version")]
    assert said == [f"{seen.cap:x}", f"{seen.ecap:x}", "1:0"]
    assert said[2] == str(Version(seen.version))


@pytest.mark.rule("VTD-35", "VTD-36")
def test_sysfs_shows_the_registers(vtd_guest: Nested, guest: Guest) -> None:
    """``cap``, ``ecap`` and ``version`` in the guest's sysfs are what ``xp`` reads."""
    check_sysfs(guest, read_registers(vtd_guest.machine))


@pytest.mark.negative_control("VTD-35", "VTD-36")
def test_sysfs_of_other_registers_is_noticed(guest: Guest, observe: Observe) -> None:
    """Registers of a machine without caching mode fail the check."""
    with must_fail():
        check_sysfs(guest, registers(observe(PLAIN)))


@pytest.mark.negative_control("VTD-36")
def test_sysfs_of_another_version_is_noticed(vtd_guest: Nested, guest: Guest) -> None:
    """A unit of version 3.0 fails the check."""
    with must_fail():
        check_sysfs(guest, replace(read_registers(vtd_guest.machine), version=0x30))


def check_interrupt_mode(log: IommuBoot, config: VtdConfig) -> None:
    """Interrupts are remapped, in x2apic mode if EIM is in force."""
    assert log.interrupt_mode == ("x2apic" if config.extended else "xapic")


@pytest.mark.rule("VTD-49")
def test_interrupts_are_remapped(guest: Guest, vtd_config: VtdConfig) -> None:
    """Interrupt remapping is enabled, in x2apic mode where EIM is on."""
    check_interrupt_mode(boot_log(guest), vtd_config)


@pytest.mark.negative_control("VTD-49")
def test_another_interrupt_mode_is_noticed(guest: Guest, vtd_config: VtdConfig) -> None:
    """The mode of a machine whose EIM is the other way fails the check."""
    with must_fail():
        check_interrupt_mode(boot_log(guest), vtd_config.having(eim=not vtd_config.extended))


def check_batching(log: IommuBoot, seen: VtdRegisters) -> None:
    """Linux does not batch invalidations iff the unit has caching mode."""
    assert log.batching_disallowed == Capability(seen.cap).caching_mode


@pytest.mark.rule("VTD-50")
def test_caching_mode_forbids_batching(vtd_guest: Nested, guest: Guest) -> None:
    """With caching mode Linux says that it does not batch invalidations."""
    check_batching(boot_log(guest), read_registers(vtd_guest.machine))


@pytest.mark.negative_control("VTD-50")
def test_batching_without_caching_mode_is_noticed(guest: Guest, observe: Observe) -> None:
    """Registers without caching mode fail the check."""
    with must_fail():
        check_batching(boot_log(guest), registers(observe(PLAIN)))


def check_strict(system: System) -> None:
    """The log says that invalidation is strict, and every domain is."""
    kinds = system.run("cat /sys/kernel/iommu_groups/*/type").stdout.split()
    assert (boot_log(system).strict, set(kinds)) == (True, {"DMA"})


@pytest.mark.rule("VTD-61")
def test_strict_invalidation_is_said(guest: Guest) -> None:
    """With ``iommu.strict=1`` the log says strict, and every group's domain is ``DMA``."""
    check_strict(guest)


@pytest.mark.negative_control("VTD-61")
def test_lazy_invalidation_is_noticed(lazy_host: Host) -> None:
    """A host whose IOMMU is not strict fails the check."""
    with must_fail():
        check_strict(lazy_host)


def check_groups(system: System) -> None:
    """The functions of one slot share a group, and no others do."""
    slots: dict[tuple[int, int], set[Bdf]] = {}
    for function in system.functions():
        slots.setdefault((function.bdf.bus, function.bdf.device), set()).add(function.bdf)
    groups = [set(members) for members in system.iommu_groups().values()]
    assert sorted(map(sorted, groups)) == sorted(map(sorted, slots.values()))


@pytest.mark.rule("VTD-55")
def test_each_slot_has_its_group(guest: Guest) -> None:
    """A function is alone in its IOMMU group but for the others of its slot."""
    check_groups(guest)


@pytest.mark.negative_control("VTD-55")
def test_a_guest_without_groups_is_noticed(plain_guest: Guest) -> None:
    """A guest without a vIOMMU fails the check."""
    with must_fail():
        check_groups(plain_guest)


def check_interrupts(system: System) -> None:
    """There are message interrupts of PCI functions, and each goes through the IOMMU."""
    chips = [row.chip for row in system.interrupts().rows if "PCI-MSI" in row.chip]
    assert chips
    assert not [chip for chip in chips if not chip.startswith("IR-")]


@pytest.mark.rule("INT-14")
def test_message_interrupts_are_remapped(guest: Guest) -> None:
    """Every message interrupt of a PCI function, emulated or assigned, is a remapped one."""
    check_interrupts(guest)


@pytest.mark.negative_control("INT-14")
def test_interrupts_past_the_iommu_are_noticed(plain_guest: Guest) -> None:
    """A guest without a vIOMMU fails the check."""
    with must_fail():
        check_interrupts(plain_guest)


# -- the table that firmware gives ------------------------------------------------------------


def check_table(system: System, host: Host, config: VtdConfig) -> None:
    """The DMAR table is what *config* implies."""
    content = acpi_table(system, "DMAR")
    assert content is not None, "no DMAR table"
    table = parse_dmar(content)
    seen = (table.interrupt_remapping, table.address_width, [unit.base for unit in table.units])
    assert seen == (config.remaps, config.aw_bits(host.qemu.version), [REGISTERS_BASE])
    assert bool(table.ats_ports) == bool(config.device_options.get("device-iotlb"))


@pytest.mark.rule("VTD-53", "VTD-54")
def test_table_describes_the_unit(guest: Guest, host: Host, vtd_config: VtdConfig) -> None:
    """The DMAR table has the unit, its width, interrupt remapping, and ATS with device-iotlb."""
    check_table(guest, host, vtd_config)


@pytest.mark.negative_control("VTD-53")
def test_a_guest_without_the_table_is_noticed(plain_guest: Guest, host: Host) -> None:
    """A guest without a vIOMMU has no such table and fails the check."""
    with must_fail():
        check_table(plain_guest, host, VtdConfig())


@pytest.mark.negative_control("VTD-53", "VTD-54")
@pytest.mark.parametrize(
    "option", [{"intremap": False}, {"aw_bits": 39}, {"device_iotlb": False}], ids=str
)
def test_a_table_of_another_unit_is_noticed(
    guest: Guest, host: Host, vtd_config: VtdConfig, option: dict[str, int | bool]
) -> None:
    """The table of a unit that is set up otherwise fails the check."""
    with must_fail():
        check_table(guest, host, vtd_config.having(**option))


# -- what QEMU does ---------------------------------------------------------------------------


def check_traces(events: Sequence[TraceEvent]) -> None:
    """Translation was turned on, and then for the stray function too."""
    on = [n for n, e in enumerate(events)
          if e.name == "vtd_dmar_enable" and e.arguments == "enable 1"]  # fmt: skip
    assert on, "translation was not turned on"
    switched = [
        e.arguments
        for e in events[on[0] :]
        if e.name == "vtd_switch_address_space" and f"{STRAY.bus:02x}:{STRAY.slot} " in e.arguments
    ]
    assert switched, f"no switch of {STRAY}"
    assert switched[-1].endswith("enabled=1)"), switched


@pytest.mark.rule("VTD-45")
def test_enabling_is_traced(vtd_guest: Nested) -> None:
    """When the guest turns translation on, QEMU switches the address space of each function."""
    check_traces(traced(vtd_guest.machine))


@pytest.mark.negative_control("VTD-45")
def test_traces_before_enabling_are_noticed(vtd_guest: Nested) -> None:
    """The events up to the moment of enabling fail the check, with it and without."""
    events = traced(vtd_guest.machine)
    until = next(n for n, e in enumerate(events) if e.arguments == "enable 1")

    with must_fail():
        check_traces(events[:until])
    with must_fail():
        check_traces(events[: until + 1])


def check_translated(tree: MemoryTree, memory_map: MemoryMap) -> None:
    """Each function's tree has vtd-DD.F-dmar on and vtd-nodmar off; its view shows just that."""
    blocks = vtd_blocks(tree)
    assert blocks
    for block in blocks:
        name = block.roots[0].name
        found = [nodes(block, wanted)[0].disabled for wanted in (f"{name}-dmar", "vtd-nodmar")]
        assert found == [False, True], name
    stray = f"vtd-{STRAY.slot}"
    views = [v for v in memory_map if stray in {space.root for space in v.spaces}]
    rows = [[row.name for row in view.regions] for view in views]
    assert rows == [[f"{stray}-dmar", "vtd-ir", f"{stray}-dmar"]]


@pytest.mark.rule("VTD-40")
def test_views_are_translated(vtd_guest: Nested) -> None:
    """With translation on, a function sees one translated range, cut by the interrupt window."""
    machine = vtd_guest.machine
    check_translated(machine.memory_tree(disabled=True), machine.memory_map())


@pytest.mark.negative_control("VTD-40")
def test_untranslated_views_are_noticed(observe: Observe) -> None:
    """A machine whose guest has not turned translation on fails the check."""
    paused = observe(GUEST)

    with must_fail():
        check_translated(paused.tree, paused.memory_map)


def check_shadow(vtd_guest: Nested, guest: Guest, *, blocks: int) -> None:
    """While the guest reads *blocks* of the assigned nvme right, QEMU follows its mappings."""
    disk = BlockDevice(guest, "/dev/nvme0n1")
    with vtd_guest.machine.tracing("vtd_page_walk_one") as window:
        right = [disk.holds(DISK_SEED, offset=n * BLOCK, length=BLOCK) for n in range(blocks)]
    assert all(right), right
    assert window.count("vtd_page_walk_one") > 0, f"no page is walked for {blocks} blocks"


@pytest.mark.rule("VTD-57")
def test_mappings_are_shadowed(vtd_guest: Nested, guest: Guest) -> None:
    """An assigned disk works under the vIOMMU, and each mapping reaches QEMU (caching mode)."""
    check_shadow(vtd_guest, guest, blocks=4)


@pytest.mark.negative_control("VTD-57")
def test_an_idle_disk_is_noticed(vtd_guest: Nested, guest: Guest) -> None:
    """Without a mapping there is nothing to shadow, and the check fails."""
    with must_fail():
        check_shadow(vtd_guest, guest, blocks=0)


def stray_faults(guest: Guest, address: int, *, master: bool = True) -> tuple[IommuFault, ...]:
    """Let the stray function write to *address*; return the faults that Linux logs of it."""
    log = FaultLog.listen(guest)
    stray_write(guest, STRAY, address, master=master)
    return log.soon() if master else log.faults()


def check_memory_fault(faults: Sequence[IommuFault], address: int) -> None:
    """The first is a write of the stray function to *address*."""
    seen = [(fault.kind, fault.source, fault.address) for fault in faults]
    assert seen[:1] == [(FaultKind.DMA_WRITE, STRAY, address)], faults


@pytest.mark.rule("VTD-51")
def test_dma_to_nowhere_faults(guest: Guest) -> None:
    """A DMA of an emulated function to an address that is not mapped is logged by Linux."""
    check_memory_fault(stray_faults(guest, UNMAPPED), UNMAPPED)


@pytest.mark.negative_control("VTD-51")
def test_dma_that_does_not_happen_is_noticed(guest: Guest) -> None:
    """A function that is no bus master makes no DMA, and the check fails."""
    with must_fail():
        check_memory_fault(stray_faults(guest, UNMAPPED, master=False), UNMAPPED)


def check_interrupt_fault(faults: Sequence[IommuFault]) -> None:
    """The first is an interrupt through the entry that is not there.

    Its source is not checked: QEMU knows the requester of messages, not of a plain DMA write to
    the window, and reports ff:1f.7 for the latter.
    """
    seen = [(fault.kind, fault.index) for fault in faults]
    assert seen[:1] == [(FaultKind.INTERRUPT, NO_ENTRY)], faults


@pytest.mark.rule("VTD-52")
def test_interrupt_without_an_entry_faults(guest: Guest) -> None:
    """An interrupt through a remapping entry that does not exist is logged by Linux."""
    check_interrupt_fault(stray_faults(guest, message_address(NO_ENTRY)))


@pytest.mark.negative_control("VTD-52")
def test_a_fault_that_is_no_interrupt_is_noticed(guest: Guest) -> None:
    """A write to memory faults too, but not as an interrupt, and the check fails."""
    faults = stray_faults(guest, UNMAPPED)
    assert faults, "the write to memory did not fault"

    with must_fail():
        check_interrupt_fault(faults)


# -- reset: last, it ends the guest -----------------------------------------------------------


def check_initial(seen: VtdRegisters, initial: VtdRegisters) -> None:
    """Registers are those of a machine that has not run."""
    assert seen == initial, f"{seen}\n{initial}"


@pytest.mark.negative_control("VTD-37")
def test_registers_in_use_are_noticed(vtd_guest: Nested, observe: Observe) -> None:
    """Registers of a unit that translates fail the check."""
    seen = read_registers(vtd_guest.machine)
    assert GlobalStatus(seen.global_status).translating

    with must_fail():
        check_initial(seen, registers(observe(GUEST)))


@pytest.mark.rule("VTD-37")
def test_reset_makes_the_registers_new(used_machine: Machine, observe: Observe) -> None:
    """After ``system_reset`` of a guest that used the unit, all registers are initial again."""
    reset_and_stop(used_machine)

    check_initial(read_registers(used_machine), registers(observe(GUEST)))

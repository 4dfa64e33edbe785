"""What a computer can run, and the exact change that would let it run the rest. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.model.machine_facts import MachineFacts, RuleFacts
from harness.model.rule import RuleState

GIB = 1 << 30
NEEDED_MEMORY = 5 * GIB // 2
"""A virtual host has 2 GiB; QEMU, the runner and the page cache want the rest."""
NEEDED_DISK = 2 * GIB
"""What the default images and their packages take."""
READY = "ready"
"""State of a rule whose tests can run."""
MISSING = "missing"
"""State of a rule whose tests would all be skipped."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something to do."""

    enables: str
    how: str
    """A command, a word for the kernel command line, an option: to be done as it is."""


def blockers(facts: MachineFacts) -> tuple[Change, ...]:
    """Return what keeps the default run (``trapline run``) from working; empty if it works."""
    found = []
    if facts.cpu.architecture != "x86_64":
        found.append(
            Change("any run", f"use an x86_64 computer; this is {facts.cpu.architecture}")
        )
    if facts.missing_packages:
        found.append(
            Change(
                "making images",
                "apt-get install --no-install-recommends " + " ".join(facts.missing_packages),
            )
        )
    if not facts.cache.is_complete:
        if not facts.mirror.is_known:
            found.append(
                Change("fetching images", "set TRAPLINE_MIRROR to the address of a Debian mirror")
            )
        if facts.cache.free < NEEDED_DISK:
            found.append(
                Change("making images", "free 2 GB, or set TRAPLINE_CACHE to a larger file system")
            )
    if facts.rules_unknown:
        found.append(Change("any run", f"repair the suites: {facts.rules_unknown}"))
    if facts.memory_total < NEEDED_MEMORY:
        found.append(Change("a virtual host", "give this computer 2.5 GiB of memory"))
    return tuple(found)


def rule_counts(facts: MachineFacts, host: str) -> dict[str, int]:
    """Return how many rules are in each state on *host* (``virtual`` or ``local``).

    ``ready`` and ``missing`` are rules with suite tests; the other states do not depend on
    the host: ``pure``, ``hardware``, ``documentation``, ``uncovered``.
    """
    states = Counter(_state(facts, host, rule) for rule in facts.rules)
    order = [READY, MISSING, *map(str, RuleState)]
    return {state: states[state] for state in order if states[state]}


def _state(facts: MachineFacts, host: str, rule: RuleFacts) -> str:
    if rule.state is not RuleState.NOT_RUN:
        return str(rule.state)
    if host == "virtual":
        works = not blockers(facts) and has_any(rule.only, emulated(facts))
    else:
        works = facts.is_root and not local_obstacles(facts, rule)
    return READY if works else MISSING


def has_any(wanted: Sequence[str], there: Sequence[str]) -> bool:
    """Say whether one of *wanted* is there; nothing wanted is always there."""
    return not wanted or bool(set(wanted) & set(there))


def emulated(facts: MachineFacts) -> tuple[str, ...]:
    """Return the test devices of a virtual host; all, as long as its QEMU is not there yet."""
    for qemu in facts.qemus:
        if qemu.spec == facts.l0_qemu:
            return qemu.test_devices
    return tuple({name for rule in facts.rules for name in rule.only})


def local_obstacles(facts: MachineFacts, rule: RuleFacts) -> str:
    """Return why no test of *rule* can run with ``--host local``, or nothing."""
    if rule.section == "P" and facts.cpu.architecture != "s390x":
        return "needs an s390x computer"
    if "lab" in rule.needs:
        return "looks at the lab's side of a virtual host"
    if "devices" in rule.needs:
        there = [f.test_device for f in facts.functions if f.test_device and not f.obstacle]
        if not there or not has_any(rule.only, there):
            return "needs test devices behind an IOMMU"
    return ""


def changes(facts: MachineFacts) -> tuple[Change, ...]:
    """Return what would enable more than now, the cheapest first."""
    return (
        *blockers(facts),
        *_for_speed(facts),
        *_for_virtual(facts),
        *_for_local(facts),
        *_for_rules(facts),
    )


def _for_speed(facts: MachineFacts) -> list[Change]:
    kvm, cpu = facts.accelerator, facts.cpu
    what = "KVM for virtual hosts (speed)"
    if kvm.chosen == "kvm":
        return []
    if kvm.device == "forbidden":
        return [Change(what, "adduser $USER kvm, then log in again")]
    if kvm.device == "absent" and cpu.virtualisation:
        return [Change(what, f"modprobe kvm_{'amd' if cpu.virtualisation == 'svm' else 'intel'}")]
    if cpu.is_virtual and not cpu.virtualisation:
        return [
            Change(
                what,
                "let the hypervisor below expose svm or vmx (its kvm module with nested=1, "
                "its QEMU with -cpu host), or use another computer",
            )
        ]
    if not cpu.virtualisation:
        return [Change(what, "enable SVM or VT-x in the firmware setup")]
    return []


def _for_virtual(facts: MachineFacts) -> list[Change]:
    found = []
    every = {name for rule in facts.rules for name in rule.only}
    for name in sorted(every - set(emulated(facts))):
        having = [q.spec for q in facts.qemus if name in q.test_devices] or ["debian:trixie"]
        found.append(Change(f"tests of {name}", f"trapline run --l0-qemu {having[0]}"))
    if not facts.cache.is_complete:
        found.append(Change("the first run (network needed once)", "trapline images build"))
    known = [kernel for kernel in facts.kernels if kernel.iommufd is not None]
    if known and not any(kernel.iommufd for kernel in known):
        found.append(
            Change(
                "rules of iommufd on virtual hosts",
                "boot a kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV: "
                "trapline run --kernel built:7.3 (compiles it, once)",
            )
        )
    return found


def _for_local(facts: MachineFacts) -> list[Change]:
    what = "assigning devices of this computer (--host local)"
    found = [] if facts.is_root else [Change(what, "run as root")]
    iommu, vfio = facts.iommu, facts.vfio
    if not iommu.groups:
        found.append(Change(what, _iommu_advice(facts)))
    absent = [name for name in ("vfio_pci", "vfio_iommu_type1") if vfio.modules[name] == "absent"]
    if absent:
        found.append(
            Change(what, "boot a kernel with CONFIG_VFIO_PCI and CONFIG_VFIO_IOMMU_TYPE1")
        )
    elif vfio.modules["vfio_pci"] == "available":
        found.append(Change(what, "modprobe vfio-pci"))
    if not vfio.iommufd:
        if vfio.modules["iommufd"] == "available":
            found.append(Change("iommufd on this computer", "modprobe iommufd"))
        else:
            found.append(
                Change(
                    "iommufd on this computer",
                    "boot a kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV",
                )
            )
    if not any(f.test_device for f in facts.functions):
        found.append(
            Change(what, "put in a device that the suites know (docs/hosts.md lists their ids)")
        )
    for function in facts.functions:
        if function.test_device and function.obstacle.startswith("in use"):
            found.append(
                Change(f"{function.test_device} of this computer", f"free it: {function.obstacle}")
            )
    return found


def _iommu_advice(facts: MachineFacts) -> str:
    iommu = facts.iommu
    if "DMAR" in iommu.tables:
        return "add intel_iommu=on to the kernel command line (a kernel with CONFIG_INTEL_IOMMU)"
    if "IVRS" in iommu.tables:
        return (
            "take amd_iommu=off and iommu=off from the kernel command line"
            " (a kernel with CONFIG_AMD_IOMMU)"
        )
    if facts.cpu.is_virtual:
        return (
            "give this virtual machine an IOMMU, for example"
            " -device intel-iommu,intremap=on,caching-mode=on, and intel_iommu=on to its kernel"
        )
    return "enable VT-d or AMD-Vi in the firmware setup"


def _for_rules(facts: MachineFacts) -> list[Change]:
    without = [r for r in facts.rules if r.state in (RuleState.UNCOVERED, RuleState.HARDWARE)]
    found = []
    for state, text in (
        (RuleState.UNCOVERED, "write a test (docs/first-rule-test.md)"),
        (RuleState.HARDWARE, "needs the hardware each rule names (trapline rules)"),
    ):
        series = Counter(r.id.rpartition("-")[0] for r in without if r.state is state)
        ap = {name: series.pop(name) for name in list(series) if name in _s390x_series(facts)}
        if series:
            words = ", ".join(f"{name} {n}" for name, n in sorted(series.items()))
            found.append(Change(f"{sum(series.values())} rules ({words})", text))
        if ap:
            words = ", ".join(f"{name} {n}" for name, n in sorted(ap.items()))
            found.append(
                Change(
                    f"{sum(ap.values())} rules of vfio-ap ({words})",
                    "write a test; it needs an AP host (docs/ap-host.md)",
                )
            )
    return found


def _s390x_series(facts: MachineFacts) -> set[str]:
    return {rule.id.rpartition("-")[0] for rule in facts.rules if rule.section == "P"}

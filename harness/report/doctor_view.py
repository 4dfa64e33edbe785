"""``trapline doctor`` in words and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from harness.model.machine_facts import MachineFacts
from harness.report.advice import blockers, changes, rule_counts

HOSTS = ("virtual", "local")


def as_dict(facts: MachineFacts) -> dict[str, object]:
    """Return all of it for `json`: the facts, and what follows from them.

    Keys beside those of `MachineFacts`: ``works`` (the default run can), ``rule_counts`` (host
    to state to number) and ``changes`` (list of ``enables`` and ``how``).
    """
    return {
        **asdict(facts),
        "works": not blockers(facts),
        "rule_counts": {host: rule_counts(facts, host) for host in HOSTS},
        "changes": [asdict(change) for change in changes(facts)],
    }


def as_lines(facts: MachineFacts) -> list[str]:
    """Return it for people."""
    lines = [f"{name + ':':<14}{text}" for name, text in _rows(facts)]
    lines += ["", f"functions{'':>12}id         driver       group"]
    for f in facts.functions:
        group = "-" if f.group is None else str(f.group)
        lines.append(
            f"  {f.bdf:<17}  {f.id:<9}  {f.driver or '-':<12} {group:<5}  "
            f"{f.obstacle or 'can be assigned'}{f' ({f.test_device})' if f.test_device else ''}"
        )
    lines += ["", "rules"]
    for host in HOSTS:
        counts = ", ".join(f"{n} {state}" for state, n in rule_counts(facts, host).items())
        lines.append(f"  --host {host:<9}{counts or 'not counted'}")
    stop = blockers(facts)
    lines += ["", "to enable more"]
    lines += [f"  {c.enables}:\n      {c.how}" for c in changes(facts)]
    lines += ["", "trapline run works here" if not stop else "trapline run does not work here yet"]
    return lines


def _rows(facts: MachineFacts) -> Iterator[tuple[str, str]]:
    cpu, kvm, iommu, vfio = facts.cpu, facts.accelerator, facts.iommu, facts.vfio
    place = "a virtual machine" if cpu.is_virtual else "physical"
    yield "computer", f"{cpu.architecture}, {cpu.count} CPUs ({cpu.vendor}), {place}"
    yield "kernel", f"{facts.kernel}, {'root' if facts.is_root else 'not root'}"
    yield (
        "CPU",
        (
            f"flag {cpu.virtualisation or 'none of svm, vmx'}; nested KVM"
            f" {cpu.nested or 'unknown, no kvm module is loaded'}"
        ),
    )
    yield (
        "accelerator",
        f"/dev/kvm {kvm.device}; {kvm.chosen or 'undecided'}: {kvm.reason}"
        + (" (decided earlier)" if kvm.is_remembered else ""),
    )
    yield (
        "IOMMU",
        (
            f"{iommu.groups} groups; units {_words(iommu.units)}; ACPI {_words(iommu.tables)};"
            f" command line {_words(iommu.options)}"
        ),
    )
    modules = ", ".join(f"{name} {state}" for name, state in vfio.modules.items())
    yield (
        "VFIO",
        (
            f"{modules}; /dev/vfio/vfio {_yes(vfio.container)}, /dev/iommu {_yes(vfio.iommufd)},"
            f" /dev/vfio/devices {_yes(vfio.cdevs)}"
        ),
    )
    for qemu in facts.qemus:
        yield "QEMU", f"{qemu.spec} {qemu.version}: {_words(qemu.test_devices)}"
    for kernel in facts.kernels:
        known = {True: "with iommufd", False: "without iommufd", None: "iommufd unknown"}
        yield "kernel image", f"{kernel.spec} {kernel.release}, {known[kernel.iommufd]}"
    cache = facts.cache
    yield (
        "cache",
        (
            f"{cache.images} images, {cache.size / 1e9:.1f} GB;"
            f" {cache.states} saved states, {cache.states_size / 1e9:.1f} GB;"
            f" {cache.environments} Python environments,"
            f" {cache.environments_size / 1e9:.1f} GB; {cache.free / 1e9:.1f} GB free;"
            f" the default run {'has all it needs' if cache.is_complete else 'has to build'}"
        ),
    )
    yield (
        "memory",
        (f"{facts.memory_available / 1e9:.1f} of {facts.memory_total / 1e9:.1f} GB available"),
    )
    yield (
        "packages",
        (
            f"missing: {' '.join(facts.missing_packages)}"
            if facts.missing_packages
            else "all that make images are there"
        ),
    )
    mirror = facts.mirror
    yield "mirror", f"{_yes(mirror.is_known)}; suites {_words(mirror.suites)}"


def _words(words: tuple[str, ...]) -> str:
    return ", ".join(words) or "none"


def _yes(value: bool) -> str:
    return "yes" if value else "no"

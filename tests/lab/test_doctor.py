"""Looking at a computer: this one, and trees that look like others."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from harness.lab import doctor
from harness.settings import Settings


def test_this_computer_is_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRAPLINE_CACHE", str(tmp_path / "cold"))

    facts = doctor.look(Settings())

    assert facts.kernel == platform.release()
    assert facts.cpu.count >= 1
    assert facts.memory_total > facts.memory_available > 0
    assert not facts.cache.is_complete
    assert facts.accelerator.chosen == ""
    assert facts.cache.free > 0
    assert not (tmp_path / "cold").exists()  # looking changes nothing


def test_suites_are_those_whose_lists_came_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAPLINE_CACHE", str(tmp_path))
    write(tmp_path, "apt/trixie-backports-0123abcd/updated", "")
    write(tmp_path, "apt/sid-s390x-0123abcd/updated", "")
    write(tmp_path, "apt/nope-0123abcd/apt.conf", "")

    assert doctor._fetched_suites() == ("trixie-backports",)


def test_intel_computer_with_vtd_is_read(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "vendor_id\t: GenuineIntel\nflags\t\t: fpu vmx sse\n")
    write(tmp_path, "proc/cmdline", "quiet intel_iommu=on iommu=pt root=/dev/sda\n")
    write(tmp_path, "sys/module/kvm_intel/parameters/nested", "Y\n")
    write(tmp_path, "sys/firmware/acpi/tables/DMAR", "")
    for group in range(3):
        (tmp_path / f"sys/kernel/iommu_groups/{group}").mkdir(parents=True)
    (tmp_path / "sys/class/iommu/dmar0").mkdir(parents=True)

    cpu, iommu = doctor._cpu(tmp_path), doctor._iommu(tmp_path)

    assert (cpu.vendor, cpu.virtualisation, cpu.nested) == ("GenuineIntel", "vmx", "Y")
    assert not cpu.is_virtual
    assert (iommu.tables, iommu.units, iommu.groups) == (("DMAR",), ("dmar0",), 3)
    assert iommu.options == ("intel_iommu=on", "iommu=pt")


def test_amd_virtual_machine_with_kvm_off_is_read(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "vendor_id\t: AuthenticAMD\nflags\t\t: svm hypervisor\n")
    write(tmp_path, "sys/module/kvm_amd/parameters/nested", "0\n")

    cpu = doctor._cpu(tmp_path)

    assert (cpu.virtualisation, cpu.nested, cpu.is_virtual) == ("svm", "N", True)


def test_modules_are_loaded_available_or_absent(tmp_path: Path) -> None:
    tree = f"lib/modules/{platform.release()}"
    (tmp_path / "sys/module/vfio").mkdir(parents=True)
    write(tmp_path, f"{tree}/modules.dep", "kernel/drivers/vfio/pci/vfio-pci.ko.xz: x\n")
    write(tmp_path, f"{tree}/modules.builtin", "kernel/drivers/iommu/iommufd/iommufd.ko\n")
    write(tmp_path, "dev/iommu", "")

    vfio = doctor._vfio(tmp_path)

    assert vfio.modules == {
        "vfio": "loaded",
        "vfio_pci": "available",
        "vfio_iommu_type1": "absent",
        "iommufd": "available",
    }
    assert (vfio.container, vfio.iommufd, vfio.cdevs) == (False, True, False)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)

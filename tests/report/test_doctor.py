"""What a computer can run, and what would let it run more, from synthetic facts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.model.machine_facts import (
    AcceleratorFacts,
    CacheFacts,
    CpuFacts,
    FunctionFacts,
    IommuFacts,
    KernelFacts,
    MachineFacts,
    MirrorFacts,
    QemuFacts,
    RuleFacts,
    VfioFacts,
)
from harness.model.rule import RuleState
from harness.report.advice import GIB, blockers, changes, rule_counts
from harness.report.doctor_view import as_dict, as_lines

EVERY = ("nvme", "e1000e", "igb", "edu")
VFIO = dict.fromkeys(("vfio", "vfio_pci", "vfio_iommu_type1", "iommufd"), "loaded")
NVME = FunctionFacts("0000:01:00.0", "1b36:0010", "010802", "nvme", 5, "nvme", "")

RULES = (
    RuleFacts("ENV-01", "Q", RuleState.NOT_RUN),
    RuleFacts("MAP-01", "C", RuleState.NOT_RUN, ("devices",)),
    RuleFacts("SRV-01", "L", RuleState.NOT_RUN, ("devices",), ("igb",)),
    RuleFacts("NST-19", "N", RuleState.NOT_RUN, ("lab", "devices")),
    RuleFacts("MT-01", "A", RuleState.PURE),
    RuleFacts("QAT-01", "M", RuleState.UNCOVERED),
    RuleFacts("AP-01", "P", RuleState.UNCOVERED),
)

GOOD = MachineFacts(
    kernel="6.12.0",
    is_root=True,
    cpu=CpuFacts("x86_64", "GenuineIntel", 8, "vmx", False, "Y"),
    accelerator=AcceleratorFacts("there", "kvm", "a kernel booted under KVM", True),
    iommu=IommuFacts(("DMAR",), ("dmar0",), 12, ("intel_iommu=on",)),
    vfio=VfioFacts(VFIO, True, True, True),
    functions=(NVME,),
    qemus=(QemuFacts("debian:trixie", "10.0.13", EVERY),),
    kernels=(KernelFacts("debian:trixie", "6.12.107", True),),
    cache=CacheFacts(9, GIB, 50 * GIB, True, 5, 8 * GIB, 33, 6 * GIB),
    memory_total=16 * GIB,
    memory_available=12 * GIB,
    missing_packages=(),
    mirror=MirrorFacts(True, ("trixie",)),
    l0_qemu="debian:trixie",
    rules=RULES,
)
COLD = CacheFacts(0, 0, 50 * GIB, False)


def hows(facts: MachineFacts) -> list[str]:
    return [change.how for change in changes(facts)]


def test_good_computer_runs_what_has_tests() -> None:
    assert blockers(GOOD) == ()
    assert rule_counts(GOOD, "virtual") == {"ready": 4, "pure": 1, "uncovered": 2}
    assert rule_counts(GOOD, "local") == {"ready": 2, "missing": 2, "pure": 1, "uncovered": 2}


def test_good_computer_lacks_tests_and_s390x_only() -> None:
    assert hows(GOOD) == [
        "write a test (docs/first-rule-test.md)",
        "write a test; it needs an AP host (docs/ap-host.md)",
    ]


@pytest.mark.parametrize(
    ("broken", "how"),
    [
        (replace(GOOD, missing_packages=("erofs-utils", "cpio")),
         "apt-get install --no-install-recommends erofs-utils cpio"),
        (replace(GOOD, cpu=replace(GOOD.cpu, architecture="aarch64")), "use an x86_64 computer"),
        (replace(GOOD, cache=COLD, mirror=MirrorFacts(False, ())), "set TRAPLINE_MIRROR"),
        (replace(GOOD, cache=replace(COLD, free=GIB)), "free 2 GB"),
        (replace(GOOD, memory_total=GIB), "give this computer 2.5 GiB"),
        (replace(GOOD, rules=(), rules_unknown="no"), "repair the suites: no"),
    ],
)  # fmt: skip
def test_what_stops_the_default_run_is_named_with_its_cure(broken: MachineFacts, how: str) -> None:
    (found,) = blockers(broken)

    assert found.how.startswith(how)
    assert "ready" not in rule_counts(broken, "virtual")
    assert as_lines(broken)[-1] == "trapline run does not work here yet"


def test_cache_is_told_of_with_all_that_is_large_in_it() -> None:
    (line,) = (line for line in as_lines(GOOD) if line.startswith("cache:"))

    for part in ("9 images, 1.1 GB", "5 saved states, 8.6 GB", "33 Python environments, 6.4 GB"):
        assert part in line


def test_cold_cache_with_a_mirror_stops_nothing() -> None:
    cold = replace(GOOD, cache=COLD, qemus=(), kernels=())

    assert blockers(cold) == ()
    assert "trapline images build" in hows(cold)
    assert rule_counts(cold, "virtual")["ready"] == 4


@pytest.mark.parametrize(
    ("lacking", "how"),
    [
        (replace(GOOD, iommu=replace(GOOD.iommu, groups=0)), "add intel_iommu=on"),
        (replace(GOOD, iommu=IommuFacts(("IVRS",), (), 0, ("amd_iommu=off",))),
         "take amd_iommu=off"),
        (replace(GOOD, iommu=IommuFacts((), (), 0, ())), "enable VT-d or AMD-Vi"),
        (replace(GOOD, iommu=IommuFacts((), (), 0, ()), cpu=replace(GOOD.cpu, is_virtual=True)),
         "give this virtual machine an IOMMU"),
        (replace(GOOD, vfio=replace(GOOD.vfio, modules=VFIO | {"vfio_pci": "available"})),
         "modprobe vfio-pci"),
        (replace(GOOD, vfio=replace(GOOD.vfio, modules=VFIO | {"vfio_pci": "absent"})),
         "boot a kernel with CONFIG_VFIO_PCI"),
        (replace(GOOD, vfio=VfioFacts(VFIO | {"iommufd": "absent"}, True, False, False)),
         "boot a kernel with CONFIG_IOMMUFD"),
        (replace(GOOD, vfio=VfioFacts(VFIO | {"iommufd": "available"}, True, False, False)),
         "modprobe iommufd"),
        (replace(GOOD, is_root=False), "run as root"),
        (replace(GOOD, functions=()), "put in a device"),
        (replace(GOOD, functions=(replace(NVME, obstacle="in use by the host: mounted"),)),
         "free it: in use by the host: mounted"),
        (replace(GOOD, accelerator=AcceleratorFacts("absent", "tcg", "no /dev/kvm", False)),
         "modprobe kvm_intel"),
        (replace(GOOD, accelerator=AcceleratorFacts("forbidden", "tcg", "open", False)),
         "adduser $USER kvm"),
        (replace(GOOD, cpu=replace(GOOD.cpu, virtualisation=""),
                 accelerator=AcceleratorFacts("absent", "tcg", "no /dev/kvm", False)),
         "enable SVM or VT-x"),
        (replace(GOOD, cpu=replace(GOOD.cpu, virtualisation="", is_virtual=True),
                 accelerator=AcceleratorFacts("absent", "tcg", "no /dev/kvm", False)),
         "let the hypervisor below expose svm or vmx"),
        (replace(GOOD, kernels=(KernelFacts("debian:trixie", "6.12", False),)),
         "boot a kernel with CONFIG_IOMMUFD"),
    ],
)  # fmt: skip
def test_what_is_missing_comes_with_the_exact_change(lacking: MachineFacts, how: str) -> None:
    new = set(hows(lacking)) - set(hows(GOOD))

    assert any(one.startswith(how) for one in new), new
    assert blockers(lacking) == ()


def test_device_that_the_lab_qemu_lacks_is_found_in_another() -> None:
    old = replace(
        GOOD,
        l0_qemu="debian:bookworm",
        qemus=(
            QemuFacts("debian:bookworm", "7.2.22", ("nvme", "e1000e", "edu")),
            QemuFacts("debian:sid", "11.1.3", EVERY),
        ),
    )

    assert "trapline run --l0-qemu debian:sid" in hows(old)
    assert rule_counts(old, "virtual")["missing"] == 1


def test_local_host_without_iommu_runs_what_needs_no_device() -> None:
    bare = replace(GOOD, functions=(replace(NVME, obstacle="in no IOMMU group", group=None),))

    assert rule_counts(bare, "local")["ready"] == 1


def test_json_has_all_that_is_known() -> None:
    found = json.loads(json.dumps(as_dict(GOOD)))

    assert found["works"] is True
    assert found["rule_counts"]["virtual"]["ready"] == 4
    assert found["functions"][0]["bdf"] == "0000:01:00.0"
    assert found["rules"][0] == {
        "id": "ENV-01", "section": "Q", "state": "not-run", "needs": [], "only": [],
    }  # fmt: skip
    assert set(found["changes"][0]) == {"enables", "how"}


def test_text_says_what_people_ask_first() -> None:
    text = "\n".join(as_lines(GOOD))

    assert "/dev/kvm there; kvm: a kernel booted under KVM (decided earlier)" in text
    assert "12 groups; units dmar0; ACPI DMAR; command line intel_iommu=on" in text
    assert "can be assigned (nvme)" in text
    assert text.endswith("trapline run works here")

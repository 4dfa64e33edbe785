"""What regions of served and of emulated devices are called."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from harness.images.qemu_build import QemuBuild
from harness.machine.command import Device
from harness.model.memory_map import Kind, MemoryMap
from harness.model.pci import Bar, BarKind
from harness.shapes.named.bench import Guest, NamedBench, named_bench
from harness.shapes.named.catalogue import NAMED
from harness.shapes.named.placing import Placed
from harness.testing import must_fail
from suites.named_shapes.conftest import ServeToQemu, SharedEvidence
from suites.named_shapes.tpm import agreeing_tpm


def check_names(found: MemoryMap, owner: str, prefix: str) -> None:
    """Every row of *owner* that names a BAR or the ROM begins as it must."""
    rows = (*found.memory.owned_by(owner), *found.ports.owned_by(owner))
    named = [row.name for row in rows if " BAR " in row.name or row.name.endswith(".rom")]
    right = (f"{prefix} BAR ", f"vfio[{prefix}].rom")
    assert named and all(name.startswith(right) for name in named), named


@pytest.mark.parametrize("name", ["igb-pf", "qat-vf"])
@pytest.mark.rule("NM-12")
def test_served_device_is_called_after_its_socket(bench: NamedBench, name: str) -> None:
    """Regions of a device behind a socket begin with ``vfio-user:`` and the socket's path."""
    check_names(bench.map, name, f"vfio-user:{bench[name].served.socket}")


@pytest.mark.parametrize("prefix", ["0000:00:02.0", "vfio-user", "igb-pf"])
@pytest.mark.negative_control("NM-12")
def test_other_names_are_noticed(bench: NamedBench, prefix: str) -> None:
    """The check fails for a BDF, for the word alone, and for the id."""
    with must_fail():
        check_names(bench.map, "igb-pf", prefix)


NIC: Final = {"romfile": "", "mac": "52:54:00:00:00:1e"}
EMULATED: Final = Device("e1000e", "emulated", "pcie.0", "0x1e", NIC)
EMULATED_BARS: Final = Placed(
    0x1E,
    (Bar(0, BarKind.MEM32, 0x20000), Bar(3, BarKind.MEM32, 0x4000)),
    {0: 0xFD000000, 3: 0xFD100000},
)


@pytest.fixture(scope="module")
def beside(bench_build: QemuBuild, shared_evidence: SharedEvidence) -> Iterator[NamedBench]:
    """A machine with a served device and an emulated one, both with MSI-X."""
    guest = Guest("served", NAMED["nvme"].device())
    with named_bench(
        bench_build, [guest], others=[EMULATED], evidence=shared_evidence("beside")
    ) as machine:
        machine.qtest.run(EMULATED_BARS.commands())
        yield machine


def check_both_visible(found: MemoryMap, owner: str) -> None:
    """MSI-X table and pending bits of *owner* both show, as i/o."""
    rows = {row.name: row.kind for row in found.memory.owned_by(owner) if "msix" in row.name}
    assert rows == {"msix-table": Kind.IO, "msix-pba": Kind.IO}, rows


@pytest.mark.rule("NM-10")
def test_emulated_device_shows_both_parts_of_msix(beside: NamedBench) -> None:
    """Of an emulated device ``msix-table`` and ``msix-pba`` are both visible."""
    check_both_visible(beside.map, "emulated")


@pytest.mark.negative_control("NM-10")
def test_hidden_pending_bits_are_noticed(beside: NamedBench) -> None:
    """The check fails on a device that is served: its ``msix-pba`` is disabled."""
    with must_fail():
        check_both_visible(beside.map, "served")


# -- mapped, and not by vfio -------------------------------------------------------------------


def with_tpm(serve_to_qemu: ServeToQemu, control: Path) -> NamedBench:
    """Serve a device in a machine that has a TPM."""
    return serve_to_qemu(
        Guest("vf", NAMED["qat-vf"].device()),
        extra=(
            "-chardev", f"socket,id=tpm-control,path={control}",
            "-tpmdev", "emulator,id=tpm0,chardev=tpm-control", "-device", "tpm-crb,tpmdev=tpm0",
        ),
    )  # fmt: skip


def check_other_ramd(found: MemoryMap, vfio: str, expected: set[str]) -> None:
    """Beside the rows of the device *vfio* these are ramd too."""
    rows = [row for row in found.memory.regions if row.kind is Kind.RAMD]
    mine = [row for row in rows if row.owner is not None and row.owner.value == vfio]
    assert mine and {row.name for row in rows if row not in mine} == expected


@pytest.mark.rule("MAP-34")
def test_memory_of_a_tpm_is_mapped_too(serve_to_qemu: ServeToQemu, tmp_path: Path) -> None:
    """``tpm-ppi`` is ramd and no part of a vfio device: whose a row is, its owner says."""
    with agreeing_tpm(tmp_path) as control:
        check_other_ramd(with_tpm(serve_to_qemu, control).map, "vf", {"tpm-ppi"})


@pytest.mark.negative_control("MAP-34")
def test_machine_without_a_tpm_is_noticed(serve_to_qemu: ServeToQemu) -> None:
    """The check fails where all that is mapped is the device's."""
    machine = serve_to_qemu(Guest("vf", NAMED["qat-vf"].device()))

    with must_fail():
        check_other_ramd(machine.map, "vf", {"tpm-ppi"})

"""The command that reads PCI functions, run on a tree of files, and its answer."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from harness.errors import ParseError
from harness.model.pci import Bdf, PciFunction, PciId
from harness.parse.pci_bus import READ_FUNCTIONS, parse_functions

NVME, BARE = "0000:01:00.0", "0000:02:00.0"


def config(vendor: int, device: int) -> bytes:
    # Bytes that look like a header, like ends of lines and like text in no encoding.
    space = bytearray(b"\n==> \xff\r\n@\n" * 500)[:4096]
    space[:64] = struct.pack("<HHHH", vendor, device, 6, 0) + bytes(56)
    space[0x100:0x104] = bytes(4)
    return bytes(space)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    devices = tmp_path / "devices"
    for name, device in ((NVME, 0x10), (BARE, 0x11)):
        place = devices / name
        place.mkdir(parents=True)
        (place / "vendor").write_text("0x1b36\n")
        (place / "device").write_text(f"0x{device:04x}\n")
        (place / "resource").write_text(
            "0x00000000fe000000 0x00000000fe003fff 0x0000000000140204\n"
            + "0x0000000000000000 0x0000000000000000 0x0000000000000000\n" * 6
        )
        (place / "config").write_bytes(config(0x1B36, device))
    (devices / NVME / "driver").symlink_to("../../drivers/vfio-pci")
    (devices / NVME / "iommu_group").symlink_to("../../kernel/iommu_groups/13")
    (devices / "not-a-function").mkdir()
    return devices


def read(tree: Path, where: str) -> list[PciFunction]:
    text = READ_FUNCTIONS.format(where=where).replace("/sys/bus/pci/devices", os.fspath(tree))
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return list(parse_functions(done.stdout))


def test_all_functions_are_read(tree: Path) -> None:
    nvme, bare = read(tree, "*")

    assert (nvme.bdf, nvme.id) == (Bdf.parse(NVME), PciId(0x1B36, 0x10))
    assert (nvme.driver, nvme.iommu_group) == ("vfio-pci", 13)
    assert (nvme.bars[0].address, nvme.bars[0].size) == (0xFE000000, 0x4000)
    assert nvme.config == config(0x1B36, 0x10)
    assert (bare.id, bare.driver, bare.iommu_group) == (PciId(0x1B36, 0x11), None, None)


def test_one_function_is_read(tree: Path) -> None:
    assert [function.bdf for function in read(tree, BARE)] == [Bdf.parse(BARE)]


def test_function_that_is_not_there_is_none(tree: Path) -> None:
    assert read(tree, "0000:09:00.0") == []


@pytest.mark.parametrize("said", ["", "sh: cd: can't cd to /sys", "@\nno base64!"])
def test_other_text_is_refused(said: str) -> None:
    with pytest.raises(ParseError):
        list(parse_functions(said))


def test_system_without_a_pci_bus_has_no_functions(tmp_path: Path) -> None:
    assert read(tmp_path / "missing", "*") == []

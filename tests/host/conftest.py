"""A host made of files: a sysfs tree, and the few programs of it that matter.

Commands run for real, with ``/sys`` and ``/proc`` replaced by a directory. What the kernel
does when a driver attribute is written is done by the fake ``readlink``, the program that
every change ends with.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from harness.guest.keys import RunKey
from harness.guest.local import LocalTransport
from harness.guest.system import System
from harness.guest.transport import Command, Completed, command_text
from harness.host.host import GuestFiles, PlacedQemu
from harness.host.physical import SshHost
from harness.images.qemu_build import QemuFeatures
from harness.model.pci import Bdf
from harness.model.version import QemuVersion

NVME = Bdf.parse("0000:01:00.0")
NIC = Bdf.parse("0000:02:00.0")

READLINK = """#!/bin/sh
cd {root}/sys/bus/pci
for u in drivers/*/unbind; do
  [ -s $u ] && rm -f devices/$(cat $u)/driver && : > $u
done
if [ -s drivers_probe ]; then
  bdf=$(cat drivers_probe); : > drivers_probe
  wanted=$(cat devices/$bdf/driver_override)
  [ -n "$wanted" ] || wanted=$(cat devices/$bdf/.own-driver)
  if [ -d drivers/$wanted ] && ! grep -qx $bdf drivers/$wanted/.refuses; then
    ln -s {root}/sys/bus/pci/drivers/$wanted devices/$bdf/driver
  fi
fi 2>/dev/null
exec /usr/bin/readlink "$@"
"""
MODPROBE = """#!/bin/sh
echo "$1" >> {root}/modprobed
mkdir -p {root}/sys/bus/pci/drivers/$1
: > {root}/sys/bus/pci/drivers/$1/unbind; : > {root}/sys/bus/pci/drivers/$1/.refuses
"""
IP = """#!/bin/sh
cat {root}/ip-addr 2>/dev/null
"""


class FakeTransport(LocalTransport):
    """Runs commands with the tree in place of ``/sys`` and ``/proc``."""

    name = "fake host"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.is_closed = False

    def run(
        self, command: Command, *, timeout: float = 60, stdin: bytes = b"", check: bool = True
    ) -> Completed:
        """Run it."""
        text = re.sub(r"(?<![\w.])/(?=(?:sys|proc)/)", f"{self.root}/", command_text(command))
        path = f"PATH={self.root}/bin:$PATH\n"
        return super().run(path + text, timeout=timeout, stdin=stdin, check=check)

    def write(self, path: str, content: bytes) -> None:
        """Write a file of the tree."""
        super().write(re.sub(r"^(?=/(?:sys|proc)/)", str(self.root), path), content)

    def close(self) -> None:
        """Note that it was closed."""
        self.is_closed = True


class FakeHost:
    """The tree, and words to change it."""

    url = "ssh://root@lab:22"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pci = root / "sys/bus/pci"
        for directory in ("devices", "drivers"):
            (self.pci / directory).mkdir(parents=True)
        for directory in ("sys/class/net", "sys/class/block", "proc/self", "bin"):
            (root / directory).mkdir(parents=True)
        for name in ("mounts", "swaps", "self/mountinfo"):
            (root / "proc" / name).touch()
        self.reboot("boot-1")
        (self.pci / "drivers_probe").touch()
        for name, text in (("readlink", READLINK), ("modprobe", MODPROBE), ("ip", IP)):
            program = root / "bin" / name
            program.write_text(text.format(root=root))
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.add_driver("nvme")
        self.add_driver("e1000e")
        self.add(NVME, "nvme", group=5)
        self.add(NIC, "e1000e", group=6)

    @property
    def transport(self) -> FakeTransport:
        """A new connection."""
        return FakeTransport(self.root)

    @property
    def system(self) -> System:
        """The system."""
        return System(self.transport, level="L1")

    def opened(self, *, run: str = "/results/one") -> SshHost:
        """Return it as a host that stays, of which a run knows."""
        features = QemuFeatures([], {}, "none", self.root / "facts")
        return SshHost(
            self.transport,
            url=self.url,
            level="L1",
            probe="/nowhere/probe",
            qemu=PlacedQemu((), {}, "none", QemuVersion.parse("10.0.0"), features),
            guest=GuestFiles("", "", "", RunKey(self.root, "")),
            run=run,
        )

    def add_driver(self, name: str) -> None:
        directory = self.pci / "drivers" / name
        directory.mkdir()
        (directory / "unbind").touch()
        (directory / ".refuses").touch()

    def add(self, bdf: Bdf, driver: str, *, group: int | None) -> Path:
        device = self.root / "sys/devices/pci0000:00/0000:00:08.0" / str(bdf)
        device.mkdir(parents=True)
        (self.pci / "devices" / str(bdf)).symlink_to(device)
        (device / "driver").symlink_to(self.pci / "drivers" / driver)
        (device / ".own-driver").write_text(driver)
        (device / "driver_override").touch()
        if group is not None:
            (device / "iommu_group").symlink_to(f"/groups/{group}")
        return device

    def refuse(self, driver: str, bdf: Bdf) -> None:
        (self.pci / "drivers" / driver / ".refuses").write_text(f"{bdf}\n")

    def driver(self, bdf: Bdf) -> str:
        link = self.pci / "devices" / str(bdf) / "driver"
        return link.readlink().name if link.is_symlink() else ""

    def override(self, bdf: Bdf) -> str:
        return (self.pci / "devices" / str(bdf) / "driver_override").read_text().strip()

    def reboot(self, boot: str) -> None:
        path = self.root / "proc/sys/kernel/random/boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{boot}\n")

    def add_disk(self, name: str, place: Path, number: str) -> Path:
        """Put a disk or partition at *place*, and what shows it in ``/sys/class/block``."""
        (place / "holders").mkdir(parents=True)
        (place / "dev").write_text(f"{number}\n")
        (self.root / "sys/class/block" / name).symlink_to(place)
        return place

    def device(self, bdf: Bdf) -> Path:
        return (self.pci / "devices" / str(bdf)).resolve()

    def mount(self, name: str) -> None:
        (self.root / "proc/mounts").write_text(f"/dev/{name} / ext4 rw 0 0\n")


@pytest.fixture
def fake(tmp_path: Path) -> FakeHost:
    """A host with an nvme in group 5 and an e1000e in group 6."""
    root = tmp_path / "host"
    root.mkdir()
    return FakeHost(root)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of its own for every test."""
    directory = tmp_path / "state"
    monkeypatch.setenv("TRAPLINE_STATE", str(directory))
    return directory

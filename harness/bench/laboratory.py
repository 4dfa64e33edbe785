"""What every benchmark needs: images, a key, a place for evidence, and whom to compare with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harness.guest.keys import RunKey
from harness.host.virtual_spec import virtual_host_spec
from harness.lab.hosts import DISK_SEED, NVME_BYTES
from harness.lab.parts import Parts
from harness.machine.command import MachineSpec
from harness.model.pattern import pattern


@dataclass(frozen=True, slots=True)
class Laboratory:
    """Where benchmarks are made; its images are there before anything is measured."""

    parts: Parts
    key: RunKey
    work: Path
    """Directory of this run; what is put there is kept."""
    against: tuple[str, ...] = ()
    """Peers that were asked for."""

    @property
    def accelerator(self) -> str:
        """Value of ``-accel`` for virtual hosts."""
        return self.parts.accelerator(self.work).option

    def host_spec(self, *, ssh_port: int) -> MachineSpec:
        """Return the machine of a virtual host, as `harness.lab.hosts.open_virtual` makes it."""
        return virtual_host_spec(
            self.parts.host_files(),
            accel=self.accelerator,
            nvme_disk=os.fspath(self._disk()),
            devices=self.parts.devices,
            ssh_port=ssh_port,
        )

    def _disk(self) -> Path:
        disk = self.work / "nvme.img"
        if not disk.exists():
            disk.write_bytes(pattern(DISK_SEED, 0, NVME_BYTES))
        return disk

    def facts(self) -> dict[str, str]:
        """Return what is measured, for people."""
        parts = self.parts
        return {
            "lab QEMU": f"{parts.l0_qemu.label} {parts.l0_qemu.version}",
            "QEMU under test": f"{parts.qemu.label} {parts.qemu.version}",
            "host kernel": parts.kernel.release,
            "guest kernel": parts.guest.release,
            "accelerator": self.accelerator,
        }

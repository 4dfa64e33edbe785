"""What every benchmark needs: images, a key, a place for evidence, and whom to compare with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harness.guest.keys import RunKey
from harness.host.virtual_spec import TEST_DEVICES, virtual_host_spec
from harness.lab.hosts import DISK_SEED, NVME_BYTES, OFF, methods
from harness.lab.nested import guest_spec
from harness.lab.parts import Parts
from harness.lab.resident import LATE
from harness.lab.states import Rung, States
from harness.machine.command import MachineSpec
from harness.machine.saved_state import SavedState, StateBroken
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

    def rung(self, nested: MachineSpec | None = None, *, ssh_port: int = 0) -> Rung:
        """Return what the saved state of a host is of, as `harness.lab.hosts.open_virtual` does.

        :param nested: the guest that is up in it.
        """
        stay = [name for name in self.parts.devices if not TEST_DEVICES[name].comes_late]
        spec = virtual_host_spec(
            self.parts.host_files(), accel=self.accelerator, devices=stay, ssh_port=ssh_port
        )
        return Rung(spec, nested)

    def guest_spec(self) -> MachineSpec:
        """Return the guest that is up in a saved host; what is assigned to it comes late."""
        return guest_spec(self.parts.guest_files(self.key), append=LATE)

    def state(self, rung: Rung) -> SavedState:
        """Return the saved state of *rung* in the best way there is, made now if it is not there.

        :raise StateBroken: no way works here.
        """
        states = States(self.parts)
        reasons: list[str] = []
        for way in methods(self.ways):
            try:
                return states.obtain(rung, way)[0]
            except StateBroken as error:
                reasons.append(f"{way.value}: {error}")
        raise StateBroken("no host can be saved here", seen="\n".join(reasons))

    @property
    def ways(self) -> str:
        """How states are kept, of the settings; all ways if those say that hosts boot."""
        chosen = self.parts.settings.saved_state
        return "auto" if chosen == OFF else chosen

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

"""A virtual host in which the QEMU under test has Arm machines, for rules about smmuv3.

The host is the same as ever: x86, real vfio-pci, vhost. Only the QEMU that lies in it is another
program of the same release. Its machines are emulated and run no guest.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from harness.errors import MissingDevice
from harness.guest.keys import RunKey
from harness.host.virtual import VirtualHost
from harness.images.qemu_arm import RECIPE, find_arm_qemu
from harness.images.qemu_build import QemuBuild
from harness.lab.hosts import open_virtual
from harness.lab.parts import Parts


class ArmParts(Parts):
    """The parts of a run with the Arm program of the QEMU under test in its place."""

    @cached_property
    def qemu(self) -> QemuBuild:
        """The build with Arm machines.

        :raise MissingDevice: it was not made yet, or the QEMU under test is no Debian build.
        """
        spec = self.settings.qemu
        found = None
        if spec.startswith("debian:"):
            found = find_arm_qemu(spec, self.images.workshop)
        if found is None:
            raise MissingDevice(
                f"there is no build with Arm machines of QEMU {spec}",
                hint=f"trapline images build {RECIPE} --qemu debian:SUITE makes one",
            )
        return found

    @cached_property
    def l0_qemu(self) -> QemuBuild:
        """The QEMU that runs virtual hosts: never the one with Arm machines."""
        return QemuBuild.resolve(self.settings.l0_qemu, self.images.workshop)


def open_arm_host(parts: Parts, *, key: RunKey, evidence: Path) -> VirtualHost:
    """Boot a virtual host whose QEMU has Arm machines.

    :raise MissingDevice: no such build was made; says how to.
    """
    arm = ArmParts(parts.settings, parts.images)
    arm.qemu.pack()
    return open_virtual(arm, key=key, evidence=evidence, saved=False)

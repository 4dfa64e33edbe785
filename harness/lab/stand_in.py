"""What stands for the device of a profile on a virtual host: QEMU's, or models in Python.

Both have a real Linux in front of them. The host is there for one look and is thrown away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from harness.errors import ConfigError, MissingDevice
from harness.guest.keys import RunKey
from harness.guest.look import look, seen
from harness.guest.sriov import Sriov
from harness.host.virtual import VirtualHost
from harness.lab.hosts import open_virtual
from harness.lab.parts import Parts
from harness.lab.shape_host import open_shape_host
from harness.lab.sriov_stage import SUBSYSTEM, behind
from harness.lab.vfio_user import parts_with_devices
from harness.machine.command import Device
from harness.model.profile import DeviceProfile, EnableRule, SeenDevice, of_shapes
from harness.shapes.named.catalogue import NAMED
from harness.step import step

PORT: Final = "rp0"
MOST: Final = 2
"""Virtual functions that are enabled where any number may be."""


@contextlib.contextmanager
def stand_in(
    parts: Parts, profile: DeviceProfile, *, key: RunKey, evidence: Path
) -> Iterator[SeenDevice]:
    """Have what stands for the device of *profile* while inside.

    :raise ConfigError: the profile names nothing that does.
    """
    if profile.stand_in.shapes:
        yield _shapes(parts, profile, key, evidence)
        return
    if not profile.stand_in.qemu:
        raise ConfigError(
            f"nothing stands for {profile.name} on a virtual host",
            hint="look at a real one: --host local or --host ssh://…; or give the profile a"
            " [stand_in]",
        )
    with contextlib.closing(_host(parts, profile, key=key, evidence=evidence)) as host:
        loaded = f"modprobe {profile.driver}" if profile.driver else ":"
        bdf = behind(host, PORT, "driver", before=loaded)
        family = Sriov(host, bdf)
        if family.has("totalvfs"):
            total = int(family.read("totalvfs"))
            everything = profile.sriov.enable is EnableRule.ALL_OR_NONE
            count = total if everything else min(MOST, total)
            with step("enable %d virtual functions of %s", count, bdf):
                host.write_text(f"/sys/bus/pci/devices/{bdf}/sriov_numvfs", str(count))
        yield look(host, profile, bdf)


def _host(parts: Parts, profile: DeviceProfile, *, key: RunKey, evidence: Path) -> VirtualHost:
    """Open a virtual host with QEMU's device: plugged, or where that cannot be, from its boot."""
    wanted, options = profile.stand_in, dict(profile.stand_in.options)
    if not parts.l0_qemu.features.has_device(wanted.qemu):
        raise MissingDevice(
            f"the lab's QEMU ({parts.l0_qemu.label}) has no {wanted.qemu}",
            hint="give it one that has: TRAPLINE_L0_QEMU",
        )
    if wanted.subsystem:
        device = Device(wanted.qemu, profile.name, PORT, "0", {**options, "subsys": SUBSYSTEM.id})
        return open_virtual(
            parts, key=key, evidence=evidence, saved=False, devices=(),
            emulated=[SUBSYSTEM, device],
        )  # fmt: skip
    host = open_virtual(parts, key=key, evidence=evidence, devices=("edu",))
    try:
        with step("plug %s into %s", profile.name, host.name):
            host.machine.add_device(Device(wanted.qemu, profile.name, PORT, "0", options))
    except BaseException:
        host.close()
        raise
    return host


def _shapes(parts: Parts, profile: DeviceProfile, key: RunKey, evidence: Path) -> SeenDevice:
    names = dict(zip(("physical", "virtual"), profile.stand_in.shapes, strict=True))
    if unknown := [shape for shape in names.values() if shape not in NAMED]:
        raise ConfigError(
            f"profile {profile.name}: no shape is called {', '.join(unknown)}",
            hint=f"there are {', '.join(NAMED)}",
        )
    shapes = {where: NAMED[shape] for where, shape in names.items()}
    with contextlib.closing(
        open_shape_host(parts_with_devices(parts), shapes, key=key, evidence=evidence)
    ) as there:
        functions = there.functions()
        return of_shapes(
            seen(there.host, [functions["physical"]])[0],
            seen(there.host, [functions["virtual"]])[0],
        )

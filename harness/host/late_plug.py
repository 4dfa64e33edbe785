"""Giving a running virtual host its test devices.

What QEMU cannot save (nvme) is plugged after the restore; what it saves as if it were new (edu)
is found again. Each step ends with an event: QMP's answer, then the kernel showing the function.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import (
    TEST_DEVICES,
    TestDevice,
    function_behind,
    network_of,
    test_device,
)
from harness.machine.machine import Machine
from harness.step import step

_LONGEST = 30
"""Seconds until the kernel must have seen a device."""


def hot_add(machine: Machine, names: Sequence[str], *, nvme_disk: str) -> None:
    """Hot-add those of the test devices *names* that come late to a restored *machine*.

    Its system finds them while others talk to it; `settle` waits for that.

    :param nvme_disk: raw file behind the nvme.
    :raise QmpFailed: QEMU refused a device.
    """
    with step("plug %s into %s", ", ".join(names), machine.spec.name):
        for device in (TEST_DEVICES[name] for name in names):
            if not device.comes_late:
                continue
            if drive := device.options.get("drive"):
                machine.qmp.execute(
                    "blockdev-add",
                    {"driver": "raw", "node-name": drive,
                     "file": {"driver": "file", "filename": nvme_disk}},
                )  # fmt: skip
            for backend in network_of(device):
                machine.qmp.execute(
                    "netdev_add", {"type": backend.kind, "id": backend.id, **backend.options}
                )
            machine.add_device(test_device(device))


def settle(host: VirtualHost, names: Sequence[str]) -> None:
    """Wait until *host* shows the test devices *names*, and let it find again what came back new.

    :raise CommandFailed: the kernel does not show one of them.
    """
    if names:
        with step("find %s on %s", ", ".join(names), host.name):
            host.run(
                _look_for([TEST_DEVICES[name] for name in names]),
                timeout=_LONGEST + 10,
            )


def _look_for(devices: Sequence[TestDevice]) -> str:
    """Return the shell text that waits until the kernel shows every one of *devices*."""
    words, paths = ["set -e"], []
    for device in devices:
        if device.comes_late:
            paths.append(f"{function_behind(device.bus)}/config")
        else:
            path = f"/sys/bus/pci/devices/0000:00:{int(device.addr, 0):02x}.0"
            words += [f"echo 1 > {path}/remove", "echo 1 > /sys/bus/pci/rescan"]
            paths.append(f"{path}/config")
    words.append(shlex.join(["probe", "await", "--timeout", str(_LONGEST), *paths]))
    return "\n".join(words)

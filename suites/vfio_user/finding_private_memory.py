"""A defect of QEMU, shown: a vfio-user device gets the file behind memory that is private.

Not part of a default run; see docs/findings/vfio-user-private-memory.md.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.device.device import Device as ServedDevice
from harness.device.server import serve
from harness.guest.local import LocalTransport
from harness.lab.parts import Parts
from harness.machine.command import Device, MachineSpec
from harness.machine.launch import Launch
from harness.machine.machine import Machine
from harness.parse.hmp import parse_examine
from harness.wait import wait_until

VECTORS = 4
"""32-bit words at address 0: interrupt vectors of the firmware, never all zero."""


@pytest.mark.parametrize("share", [True, False], ids=["shared", "private"])
def test_device_sees_what_the_guest_sees(share: bool, device_parts: Parts, evidence: Path) -> None:
    """DMA by descriptor reaches the memory of the guest, or there is no descriptor."""
    memory = evidence / "memory"
    spec = MachineSpec(
        "firmware",
        memory_mib=64,
        machine_options={"memory-backend": "memory"},
        objects=(f"memory-backend-file,id=memory,size=64M,mem-path={memory},"
                 f"share={'on' if share else 'off'}",),
    )  # fmt: skip
    launch = Launch(LocalTransport(), device_parts.l0_qemu, evidence, level="L1")
    with serve(ServedDevice()) as served:
        device = Device("vfio-user-pci", "device", "pcie.0", "0x5", {}, str(served.socket))
        with Machine.launch(replace(spec, devices=(device,)), launch) as machine:

            def vectors() -> tuple[int, ...]:
                return tuple(parse_examine(machine.qmp.hmp(f"xp /{VECTORS}wx 0")).words)

            seen = wait_until("interrupt vectors of the firmware", lambda: (
                found if any(found := vectors()) else None
            ), timeout=30)  # fmt: skip
            served.device.config.write(4, b"\x06\x00")  # bus master
            found = served.device.dma_read(0, 4 * VECTORS)

    assert found == b"".join(word.to_bytes(4, "little") for word in seen), found.hex()

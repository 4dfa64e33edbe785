"""Opening the host of a run: virtual by default, or one that is there already."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import HostError
from harness.guest.keys import RunKey
from harness.guest.local import LocalTransport
from harness.guest.transport import Transport
from harness.host.host import GuestFiles, Host, PlacedQemu
from harness.host.physical import LocalHost, SshHost, SshUrl, connect
from harness.host.supply import supply
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import INTEL_IOMMU, virtual_host_spec
from harness.images.cache import hash_file
from harness.lab.parts import Parts, check_host_word
from harness.machine.command import Device
from harness.model.pattern import pattern

NVME_BYTES = 16 * 1024 * 1024
"""Size of the disk behind the virtual host's nvme."""
DISK_SEED = 0x7261_7074
"""Seed of the pattern that the lab puts on it (`harness.model.pattern`)."""


def open_host(parts: Parts, *, key: RunKey, evidence: Path) -> Host:
    """Open the host that the settings name.

    :param key: of this run; used for virtual hosts and nested guests.
    :param evidence: directory for what the host says.
    """
    word = parts.settings.host
    check_host_word(word)
    if word == "virtual":
        return open_virtual(parts, key=key, evidence=evidence)
    return open_physical(parts, key=key, run=os.fspath(evidence))


def open_virtual(
    parts: Parts,
    *,
    key: RunKey,
    evidence: Path,
    iommu: Device | None = INTEL_IOMMU,
    append: str = "",
    ssh_port: int = 0,
    timeout: float = 180,
) -> VirtualHost:
    """Boot a virtual host with every test device the lab's QEMU has.

    :param ssh_port: loopback port that leads to its SSH; 0 for a free one.
    """
    disk = evidence / "nvme.img"
    disk.write_bytes(pattern(DISK_SEED, 0, NVME_BYTES))
    spec = virtual_host_spec(
        parts.host_files(),
        accel=parts.accelerator(evidence).option,
        key=key.public,
        nvme_disk=os.fspath(disk),
        devices=parts.devices,
        iommu=iommu,
        append=append,
        ssh_port=ssh_port,
    )
    return VirtualHost.boot(
        spec,
        l0_qemu=parts.l0_qemu,
        key=key,
        qemu=parts.placed_qemu(),
        guest=parts.guest_files(key),
        evidence=evidence,
        timeout=timeout,
    )


def open_physical(parts: Parts, *, key: RunKey, run: str) -> SshHost | LocalHost:
    """Open the host that the settings name and bring to it what it lacks.

    :param run: directory of the run, told to others that want the same devices.
    """
    word = parts.settings.host
    transport = connect(word)
    try:
        machine = transport.run("uname -m").stdout.strip()
        if machine != "x86_64":
            raise HostError(f"{word} is {machine}; the x86 suites need x86_64", seen=machine)
        probe = _bring(transport, parts.probe)
        kind = LocalHost if word == "local" else SshHost
        return kind(
            transport,
            url=word if word == "local" else SshUrl.parse(word).full,
            # What is behind SSH is called L1: its guests are L2 as on a virtual host.
            level="L0" if word == "local" else "L1",
            probe=probe,
            qemu=_bring_qemu(transport, parts),
            guest=_bring_guest(transport, parts, key),
            run=run,
        )
    except BaseException:
        transport.close()
        raise


def _bring(transport: Transport, path: Path) -> str:
    if isinstance(transport, LocalTransport):
        return os.fspath(path)
    return supply(transport, path, key=hash_file(path))


def _bring_qemu(transport: Transport, parts: Parts) -> PlacedQemu:
    """Use the build where it is mounted already (a virtual host by hand), else send it."""
    build, packed = parts.qemu, parts.qemu.pack()
    if isinstance(transport, LocalTransport):
        return PlacedQemu(build.argv_prefix, build.env, build.label, build.version, build.features)
    program = f"bin/{packed.program}"
    mounted = transport.run(f"sha256sum /opt/qemu/{program}", check=False)
    if mounted.stdout.split()[:1] == [hash_file(packed.tree / program)]:
        prefix, env = packed.argv_prefix, packed.env
    else:
        tree = supply(transport, packed.tree, key=packed.artifact.key)
        prefix = tuple(word.replace("/opt/qemu", tree) for word in packed.argv_prefix)
        env = {name: value.replace("/opt/qemu", tree) for name, value in packed.env.items()}
    return PlacedQemu(prefix, env, build.label, build.version, build.features)


def _bring_guest(transport: Transport, parts: Parts, key: RunKey) -> GuestFiles:
    guest = parts.guest
    return GuestFiles(
        _bring(transport, guest.vmlinuz),
        _bring(transport, guest.initrd),
        guest.release,
        key.public,
        key.private,
    )

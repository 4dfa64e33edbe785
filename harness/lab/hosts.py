"""Opening the host of a run: virtual by default, or one that is there already."""

from __future__ import annotations

import functools
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import (
    ConfigError,
    GuestError,
    HostError,
    MachineError,
    ParseError,
    QmpFailed,
    WaitTimeout,
)
from harness.guest.keys import RunKey
from harness.guest.local import LocalTransport
from harness.guest.transport import Transport
from harness.host.host import GuestFiles, Host, PlacedQemu
from harness.host.late_plug import hot_add, settle
from harness.host.physical import LocalHost, SshHost, SshUrl, connect, ssh_transport
from harness.host.supply import supply
from harness.host.virtual import Left, VirtualHost
from harness.host.virtual_spec import INTEL_IOMMU, TEST_DEVICES, virtual_host_spec
from harness.images.cache import hash_file
from harness.lab.parts import Parts, check_host_word
from harness.lab.states import Rung, States
from harness.machine.command import Device, Disk, MachineSpec
from harness.machine.machine import Machine
from harness.machine.saved_state import Method
from harness.model.pattern import pattern

log = logging.getLogger(__name__)

OFF = "off"
"""Setting ``saved_state``: every host boots."""
SOON = 5.0
"""Seconds in which a host that is up accepts a log-in, or one try is made in whatever time."""
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


def check_host_answers(word: str) -> None:
    """Log in to a host behind SSH, so that a run does not begin without it.

    :raise ConfigError: a file that *word* names is not there.
    :raise Unreachable: it does not answer, or refuses us.
    """
    if word.startswith("ssh://"):
        ssh_transport(SshUrl.parse(word), timeout=SOON).close()


def open_virtual(
    parts: Parts,
    *,
    key: RunKey,
    evidence: Path,
    iommu: Device | None = INTEL_IOMMU,
    append: str = "",
    ssh_port: int = 0,
    nested: MachineSpec | None = None,
    saved: bool | None = None,
    devices: Sequence[str] | None = None,
    emulated: Sequence[Device] = (),
    objects: Sequence[str] = (),
    disks: Sequence[Disk] = (),
    timeout: float = 180,
) -> VirtualHost:
    """Open a virtual host with every test device the lab's QEMU has.

    It goes on from a saved state, made now if there is none, and gets its devices then; or it
    boots with them: when *saved* is False, when the settings say so, or when no state can be
    saved or gone on with here (which is said).

    :param ssh_port: loopback port that leads to its SSH; 0 for a free one.
    :param nested: a guest that shall be up in it, nothing assigned; only in a saved one, see
        `VirtualHost.left`.
    :param saved: None: as the settings say.
    :param devices: names of the test devices that it has; None: all.
    :param emulated: further devices, there from the start.
    :param objects: values of ``-object`` that they need.
    :param disks: block backends that they need.
    """
    names = parts.devices if devices is None else tuple(devices)
    disk = evidence / "nvme.img"
    disk.write_bytes(_disk_content())
    wanted = parts.settings.saved_state if saved is None else "auto" if saved else OFF

    def spec_with(devices: Sequence[str]) -> MachineSpec:
        spec = virtual_host_spec(
            parts.host_files(),
            accel=parts.accelerator(evidence).option,
            nvme_disk=os.fspath(disk),
            devices=devices,
            iommu=iommu,
            append=append,
            ssh_port=ssh_port,
        )
        return replace(
            spec.adding(*emulated),
            objects=(*spec.objects, *objects),
            disks=(*spec.disks, *disks),
        )

    if wanted != OFF:
        stay = [name for name in names if not TEST_DEVICES[name].comes_late]
        rung = Rung(spec_with(stay), nested)
        host = restored(
            parts, rung, methods(wanted), key=key, evidence=evidence,
            meanwhile=lambda machine: hot_add(machine, names, nvme_disk=os.fspath(disk)),
        )  # fmt: skip
        if host is not None:
            try:
                settle(host, names)
            except BaseException:
                host.close()
                raise
            return host
    return VirtualHost.boot(
        spec_with(names),
        l0_qemu=parts.l0_qemu,
        key=key,
        qemu=parts.placed_qemu(),
        guest=parts.guest_files(key),
        evidence=evidence,
        timeout=timeout,
    )


@functools.cache
def _disk_content() -> bytes:
    return pattern(DISK_SEED, 0, NVME_BYTES)


def methods(wanted: str) -> tuple[Method, ...]:
    """Return the ways to keep memory that the setting ``saved_state`` allows, best first.

    :raise ConfigError: there is no such way.
    """
    if wanted == "auto":
        return tuple(Method)
    try:
        return (Method(wanted),)
    except ValueError as error:
        raise ConfigError(
            f"no way to save states is called {wanted!r}",
            hint=f"there are auto, {', '.join(Method)}, and {OFF} for cold boots",
        ) from error


def restored(
    parts: Parts,
    rung: Rung,
    ways: Sequence[Method],
    *,
    key: RunKey,
    evidence: Path,
    meanwhile: Callable[[Machine], None] = lambda machine: None,
) -> VirtualHost | None:
    """Return a host that goes on from its saved state, None if that cannot be here.

    A state that cannot be gone on with is made again, once.

    :param meanwhile: see `VirtualHost.restore`.
    :raise QmpFailed: QEMU refused what *meanwhile* wants; the state has no part in that.
    """
    states = States(parts)
    refused: list[QmpFailed] = []

    def follow(machine: Machine) -> None:
        try:
            meanwhile(machine)
        except QmpFailed as error:
            if error.error_class:  # no answer is not a no
                refused.append(error)
            raise

    for way in ways:
        for last in (False, True):
            try:
                state, facts = states.obtain(rung, way)
            except MachineError as error:
                log.warning("no saved state (%s), the host boots: %s", way.value, error)
                break
            try:
                host = VirtualHost.restore(
                    rung.host, state, l0_qemu=parts.l0_qemu, key=key, qemu=parts.placed_qemu(),
                    guest=parts.guest_files(key), evidence=evidence, meanwhile=follow,
                )  # fmt: skip
            # A damaged memory may show itself in any way once it runs.
            except (MachineError, GuestError, ParseError, WaitTimeout, OSError) as error:
                if error in refused:
                    raise
                if last:
                    log.warning("the saved state is of no use, the host boots: %s", error)
                    break
                states.discard(rung, way, facts, str(error))
                continue
            _copy_evidence(state.directory / "evidence", evidence / "boot")
            if rung.nested is not None:
                host.left = Left(
                    rung.nested, facts.nested_directory,
                    distrust=functools.partial(states.discard, rung, way, facts),
                )  # fmt: skip
                host.accelerator = facts.accelerator
            return host
    return None


def _copy_evidence(seen: Path, place: Path) -> None:
    """Keep what was *seen* when a state was made: states go, and are read-only."""
    for path in (path for path in seen.rglob("*") if path.is_file()):
        copy = place / path.relative_to(seen)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


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
        key,
    )

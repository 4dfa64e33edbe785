"""Starting nested machines with functions assigned to them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import GuestError, HostError, MissingDevice, TimeStandsStill, Unreachable
from harness.guest.guest import Guest
from harness.guest.ssh import SshTransport
from harness.host.host import GuestFiles, Host
from harness.host.virtual import Left, VirtualHost, log_in_over_forward, wait_until_ready
from harness.host.virtual_spec import TEST_DEVICES, assigned_device, function_behind, nested_spec
from harness.lab.assigned import Assigned
from harness.machine.command import Device, MachineSpec, Options
from harness.machine.machine import Machine
from harness.model.pci import PciFunction
from harness.model.vfio.mapping import VfioOptions
from harness.step import step

WHO_HAS_IT = (
    "a lab QEMU that has it would enable this (--l0-qemu debian:trixie), or a host with the"
    " hardware"
)


class AssignedDevices(dict[str, Assigned]):
    """The assigned functions by name; one that is not there is no mistake of the test."""

    def __missing__(self, name: str) -> Assigned:
        raise MissingDevice(f"the host has no {name}", hint=WHO_HAS_IT)


@dataclass(slots=True)
class Nested:
    """A machine on a host, what is assigned to it, and its guest if one was booted."""

    host: Host
    machine: Machine
    assigned: Mapping[str, Assigned]
    guest: Guest | None = None
    owns_host: bool = False
    """Its host is there for it only, and goes with it."""

    def close(self) -> None:
        """End it."""
        if self.guest is not None:
            self.guest.close()
        try:
            self.machine.kill()
        finally:
            if self.owns_host:
                self.host.close()


def prepare(host: Host, names: Sequence[str]) -> dict[str, PciFunction]:
    """Have the test devices *names* with vfio-pci; return them as the host sees them.

    What is with vfio-pci already stays; what is bound here is put back when the host closes.

    :raise MissingDevice: the host has no such device.
    :raise NoIommu: it has, but cannot assign it.
    """
    there = {function.id: function for function in reversed(host.functions())}
    found: dict[str, PciFunction] = {}
    for name in names:
        wanted = TEST_DEVICES[name].id
        if wanted not in there:
            raise MissingDevice(f"{host.name} has no {name} ({wanted})", hint=WHO_HAS_IT)
        found[name] = there[wanted]
        host.claim(found[name].bdf)
        if found[name].driver != "vfio-pci":
            host.bind(found[name].bdf, "vfio-pci")
    return found


def properties_of(options: VfioOptions | None) -> dict[str, str | bool]:
    """Return the properties of ``-device vfio-pci`` that *options* stand for.

    Options of the machine and those that take a value of their own are left to the caller.
    """
    if options is None:
        return {}
    found: dict[str, str | bool] = {}
    if options.no_mmap:
        found["x-no-mmap"] = True
    if options.msix_relocation is not None:
        found["x-msix-relocation"] = f"bar{options.msix_relocation}"
    if options.vga:
        found["x-vga"] = True
    if options.no_geforce_quirks:
        found["x-no-geforce-quirks"] = True
    return found


def start_nested(
    host: Host,
    names: Sequence[str],
    *,
    evidence: Path,
    boot: bool = True,
    options: VfioOptions | None = None,
    iommu: Device | None = None,
    properties: Mapping[str, str | int | bool] | None = None,
    each: Mapping[str, VfioOptions] | None = None,
    more: Mapping[str, Options] | None = None,
    append: str = "",
    emulated: Sequence[Device] = (),
    extra: Sequence[str] = (),
    timeout: float = 180,
) -> Nested:
    """Start the QEMU under test with the test devices *names* assigned.

    :param boot: boot the guest and log in; else firmware only programs the BARs.
    :param options: what *properties* mean for the map.
    :param properties: further properties of every vfio-pci device (``x-no-mmap``).
    :param each: options of single devices, by name, with the properties they stand for.
    :param more: further properties of single devices.
    """
    functions = prepare(host, names)
    chosen = {name: (each or {}).get(name, options or VfioOptions()) for name in names}
    if boot:
        spec = guest_spec(host.guest, accel=host.accelerator.option, iommu=iommu, append=append)
    else:
        # All of its memory is pinned for the devices: a tenth of a second for 40 MiB.
        spec = nested_spec(accel=host.accelerator.option, iommu=iommu, memory_mib=64)
    devices = [
        device.having(**(more or {}).get(device.id, {}))
        for device in assigned_devices(functions, properties=properties, each=each)
    ]
    spec = replace(spec.adding(*devices, *emulated), extra=tuple(extra))
    machine = host.launch(spec, evidence=evidence)
    try:
        guest = None
        if boot:
            wait_until_ready(machine, timeout=timeout)
            guest = Guest(machine, log_in_over_forward(machine, _via(host), key=host.guest.key))
        else:
            for name in names:
                machine.wait_until_mapped(name)
        return _assigned(host, machine, guest, functions, chosen)
    except BaseException:
        machine.kill()
        raise


def guest_spec(
    guest: GuestFiles,
    *,
    accel: str = "",
    iommu: Device | None = None,
    append: str = "",
    emulated: Sequence[Device] = (),
    extra: Sequence[str] = (),
) -> MachineSpec:
    """Return the machine of a booting guest, nothing assigned to it yet."""
    spec = nested_spec(
        accel=accel,
        kernel=guest.kernel,
        initrd=guest.initrd,
        iommu=iommu,
        append=append,
    )
    return replace(spec.adding(*emulated), extra=tuple(extra))


def take_nested(
    host: VirtualHost,
    names: Sequence[str],
    *,
    evidence: Path,
    options: VfioOptions | None = None,
    properties: Mapping[str, str | int | bool] | None = None,
) -> Nested:
    """Take over the guest that is up in *host* and hot-add the test devices *names* to it.

    The parameters are those of `start_nested`.

    :raise TimeStandsStill: it does not go on as it should.
    """
    if host.left is None:
        raise HostError(f"no guest was left in {host.name}")
    left, host.left = host.left, None
    functions = prepare(host, names)
    spec = replace(left.spec, accel=host.accelerator.option)
    machine = host.take_over(spec, left.directory, evidence=evidence)
    try:
        devices = assigned_devices(functions, properties=properties)
        with step("hot-add %s to %s", ", ".join(names), spec.name):
            for device in devices:
                machine.add_device(device)
        machine.spec = machine.spec.adding(*devices)
        # While the guest finds its functions it can be woken and logged in to.
        guest = wake_left(host, machine, left)
        with step("find %s on %s", ", ".join(names), spec.name):
            guest.run(_signs_of(names), timeout=_LONGEST + 10)
        chosen = dict.fromkeys(names, options or VfioOptions())
        return _assigned(host, machine, guest, functions, chosen)
    except BaseException:
        machine.kill()
        raise


def wake_left(host: VirtualHost, machine: Machine, left: Left) -> Guest:
    """Wake the guest that went on in *machine* from what was *left* in *host*; log in to it.

    :raise TimeStandsStill: it does not wake, or its timer does not wake it any more.
    """
    try:
        guest = Guest(machine, log_in_over_forward(machine, host.ssh, key=host.guest.key))
    except Unreachable as error:
        machine.check()  # its death is no silence
        raise _distrusted(left, machine.spec.name, "it does not wake", error) from error
    check_that_time_goes_on(guest, left)
    return guest


def check_that_time_goes_on(guest: Guest, left: Left) -> None:
    """Look whether a guest that went on is woken by its timer.

    On hosts with Linux 7.3-rc7 some were not, each time that their state was gone on with: they
    answer, being woken by what they are asked, and stand still as soon as they wait.

    :raise TimeStandsStill: it is not; its state will be made again.
    """
    try:
        guest.run("sleep 0.05", timeout=_A_MOMENT)
    except GuestError as error:
        raise _distrusted(left, guest.name, "its timer does not wake it", error) from error


def _distrusted(left: Left, name: str, what: str, error: GuestError) -> TimeStandsStill:
    """Have the state made again from which the guest *name* went on; return what is told."""
    left.distrust(f"of its guest: {what}: {error.summary}")
    return TimeStandsStill(
        f"{name} went on from a saved state, and {what}",
        seen=str(error),
        hint="the state was removed; --no-saved-state boots every guest",
    )


_A_MOMENT = 5
"""Seconds in which 0.05 s must have passed."""
_LONGEST = 60
"""Seconds until the drivers of a guest must have taken what was hot-added."""


def _signs_of(names: Sequence[str]) -> str:
    """Return the shell text that waits until the guest uses every one of its new functions.

    Firmware switches on all decoding of all functions before a boot; for those that come later
    a driver does, of what it needs, and nobody where there is no driver. So that a test finds
    the same either way, what is missing is switched on here.
    """
    if not names:
        return ":"
    signs, enable = [], []
    for name in names:
        device = TEST_DEVICES[name]
        function = function_behind(device.guest_bus or device.bus)
        signs.append(f"{function}/{device.guest_sign}")
        if not device.guest_driver:
            enable.append(f"for f in {function}; do echo 1 > $f/enable; done")
        elif device.has_ports:  # low byte of the command register: ports, memory, bus master
            enable.append(
                f"for f in {function}; do printf '\\007' |"
                " dd of=$f/config bs=1 seek=4 conv=notrunc 2>/dev/null; done"
            )
    return "\n".join(
        ["set -e", shlex.join(["probe", "await", "--timeout", str(_LONGEST), *signs]), *enable]
    )


def assigned_devices(
    functions: Mapping[str, PciFunction],
    *,
    properties: Mapping[str, str | int | bool] | None = None,
    each: Mapping[str, VfioOptions] | None = None,
) -> list[Device]:
    """Return the vfio-pci devices that assign *functions*, by name of the test device."""
    return [
        assigned_device(
            name,
            str(function.bdf),
            options={**properties_of((each or {}).get(name)), **(properties or {})},
        )
        for name, function in functions.items()
    ]


def _via(host: Host) -> SshTransport | None:
    return host.transport if isinstance(host.transport, SshTransport) else None


def _assigned(
    host: Host,
    machine: Machine,
    guest: Guest | None,
    functions: Mapping[str, PciFunction],
    chosen: Mapping[str, VfioOptions],
) -> Nested:
    return Nested(
        host,
        machine,
        AssignedDevices(
            (name, Assigned(name, function, host, machine, guest, chosen[name]))
            for name, function in functions.items()
        ),
        guest,
    )

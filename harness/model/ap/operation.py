"""What can be done to a host with AP queues: operations, for a test that drives a real one too.

``operation.apply(state)`` says what must come of it; ``operation.write`` is the sysfs file and
the text to write on a real host, or None where it takes another means: opening the VFIO device,
loading a driver, changing the adapters. A change of the adapters shows after the next `Scan`.

    state = booted(hardware, Traits.of_version((6, 12)))
    outcome = Assign(uuid, "assign_adapter", "0x05\\n").apply(state)
    outcome.errno, outcome.state, ap_sysfs.texts(outcome.state)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from harness.model.ap import bus as ap_bus
from harness.model.ap import mdev as ap_mdev
from harness.model.ap import sysfs as ap_sysfs
from harness.model.ap import vfio as ap_vfio
from harness.model.ap.errno import Errno, KernelError
from harness.model.ap.hardware import ApConfiguration, ApHardware, Card
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import DEFAULT_DRIVER, VFIO_AP, ApKernel, Draft, Outcome, Traits
from harness.model.ap.mask import ApMask


class Operation(Protocol):
    """Something that is done to a host."""

    @property
    def write(self) -> tuple[str, str] | None:
        """The file and the text that do it on a real host; None: it takes another means."""

    def apply(self, state: ApKernel) -> Outcome:
        """Return what comes of it."""


def booted(
    hardware: ApHardware,
    traits: Traits,
    *,
    apmask: str | None = None,
    aqmask: str | None = None,
    drivers: Sequence[str] = (DEFAULT_DRIVER, VFIO_AP),
) -> ApKernel:
    """Return a host after its first scan, with *drivers* loaded.

    :param apmask: text of ``ap.apmask=`` on the kernel's command line, None: not given. Relative
        text starts from an empty mask; text that is no mask leaves it empty (``ap_perms_init``).
    """
    state = ApKernel(
        traits=traits,
        hardware=hardware,
        configuration=ApConfiguration(),
        apmask=_boot_mask(apmask),
        aqmask=_boot_mask(aqmask),
    )
    draft = Draft(replace(state, configuration=hardware.configuration))
    ap_bus.scan(draft)
    for driver in drivers:
        ap_bus.load_driver(draft, driver)
    return draft.state


def run(state: ApKernel, *operations: Operation) -> Outcome:
    """Do one after the other, up to the first that is refused or blocks; return its outcome.

    Hazards are those of all that were done.
    """
    outcome, hazards = Outcome(state), tuple[str, ...]()
    for operation in operations:
        outcome = operation.apply(outcome.state)
        hazards += outcome.hazards
        if outcome.errno is not None or outcome.blocks:
            break
    return replace(outcome, hazards=hazards)


@dataclass(frozen=True, slots=True)
class Write:
    """Write *text* to the attribute *path*."""

    path: str
    text: str

    @property
    def write(self) -> tuple[str, str]:
        """The file and the text."""
        return self.path, self.text

    def apply(self, state: ApKernel) -> Outcome:
        """Return what comes of it."""
        return ap_sysfs.write(state, *self.write)


def set_apmask(text: str) -> Write:
    """Write apmask; *text* with its newline, as for all of these."""
    return Write(f"{ap_sysfs.BUS}/apmask", text)


def set_aqmask(text: str) -> Write:
    """Write aqmask."""
    return Write(f"{ap_sysfs.BUS}/aqmask", text)


def scan() -> Write:
    """Scan the bus now."""
    return Write(f"{ap_sysfs.BUS}/scans", "1\n")


def create_mdev(text: str) -> Write:
    """Make a mediated device: *text* is its UUID."""
    return Write(f"{ap_sysfs.TYPE}/create", text)


def remove_mdev(uuid: str, text: str = "1\n") -> Write:
    """Remove a mediated device."""
    return Write(f"{ap_sysfs.MATRIX}/{uuid}/remove", text)


def assign(uuid: str, attribute: str, text: str) -> Write:
    """Write ``assign_adapter``, ``unassign_control_domain`` and so on of a mediated device."""
    return Write(f"{ap_sysfs.MATRIX}/{uuid}/{attribute}", text)


def configure(uuid: str, text: str) -> Write:
    """Write ``ap_config`` of a mediated device."""
    return Write(f"{ap_sysfs.MATRIX}/{uuid}/ap_config", text)


def bind(driver: str, apqn: Apqn) -> Write:
    """Bind a queue to a driver."""
    return Write(f"{ap_sysfs.BUS}/drivers/{driver}/bind", f"{apqn}\n")


def unbind(driver: str, apqn: Apqn) -> Write:
    """Take a queue from its driver."""
    return Write(f"{ap_sysfs.BUS}/drivers/{driver}/unbind", f"{apqn}\n")


def override(apqn: Apqn, text: str) -> Write:
    """Write a queue's driver_override (6.19 and later)."""
    return Write(f"{ap_sysfs.BUS}/devices/{apqn}/driver_override", text)


class _Other:
    """An operation that is not one write."""

    __slots__ = ()

    @property
    def write(self) -> None:
        """None: no sysfs file does it."""
        return None


@dataclass(frozen=True, slots=True)
class OpenDevice(_Other):
    """Open the VFIO device of an mdev for a virtual machine (None: without one)."""

    uuid: str
    vm: str | None

    def apply(self, state: ApKernel) -> Outcome:
        """Return what comes of it: EBUSY, EINVAL, EPERM."""
        return _done(state, lambda draft: ap_mdev.open_device(draft, self.uuid, self.vm))


@dataclass(frozen=True, slots=True)
class CloseDevice(_Other):
    """Close the VFIO device of an mdev."""

    uuid: str

    def apply(self, state: ApKernel) -> Outcome:
        """Return what comes of it."""
        return _done(state, lambda draft: ap_mdev.close_device(draft, self.uuid))


@dataclass(frozen=True, slots=True)
class ResetDevice(_Other):
    """VFIO_DEVICE_RESET: EIO if one queue did not end well, which one that is off is not."""

    uuid: str

    def apply(self, state: ApKernel) -> Outcome:
        """Return what comes of it; the resets were done, also with EIO."""
        draft = Draft(state)
        try:
            well = ap_vfio.reset_device(draft, self.uuid)
        except KernelError as error:
            return Outcome(state, error.errno)
        return Outcome(draft.state, None if well else Errno.EIO)


@dataclass(frozen=True, slots=True)
class LoadDriver(_Other):
    """Load a driver: ``vfio_ap``, or the one that has cex4queue."""

    driver: str

    def apply(self, state: ApKernel) -> Outcome:
        """Return what comes of it."""
        return _done(state, lambda draft: ap_bus.load_driver(draft, self.driver))


@dataclass(frozen=True, slots=True)
class UnloadDriver(_Other):
    """Unload a driver: EAGAIN while a virtual machine has an mdev open."""

    driver: str

    def apply(self, state: ApKernel) -> Outcome:
        """Return what comes of it."""
        return _done(state, lambda draft: ap_bus.unload_driver(draft, self.driver))


@dataclass(frozen=True, slots=True)
class PlugCard(_Other):
    """Give the machine a card, or change the one that is there."""

    adapter: int
    card: Card

    def apply(self, state: ApKernel) -> Outcome:
        """Return what comes of it."""
        return _changed(state, state.hardware.plugged(self.adapter, self.card))


@dataclass(frozen=True, slots=True)
class UnplugCard(_Other):
    """Take a card from the machine."""

    adapter: int

    def apply(self, state: ApKernel) -> Outcome:
        """Return what comes of it."""
        return _changed(state, state.hardware.unplugged(self.adapter))


@dataclass(frozen=True, slots=True)
class SetDomains(_Other):
    """Change the usage domains of the partition."""

    domains: ApMask

    def apply(self, state: ApKernel) -> Outcome:
        """Return what comes of it."""
        return _changed(state, replace(state.hardware, domains=self.domains))


@dataclass(frozen=True, slots=True)
class SetControlDomains(_Other):
    """Change the control domains of the partition."""

    domains: ApMask

    def apply(self, state: ApKernel) -> Outcome:
        """Return what comes of it."""
        return _changed(state, replace(state.hardware, control_domains=self.domains))


@dataclass(frozen=True, slots=True)
class SetReset(_Other):
    """Let resets of a queue end with a response code; None: as its card's state implies."""

    apqn: Apqn
    code: int | None

    def apply(self, state: ApKernel) -> Outcome:
        """Return what comes of it."""
        return _changed(state, state.hardware.with_reset(self.apqn, self.code))


def _done(state: ApKernel, change: Callable[[Draft], None]) -> Outcome:
    draft = Draft(state)
    try:
        change(draft)
    except KernelError as error:
        return Outcome(state, error.errno, log=error.log)
    return Outcome(draft.state, hazards=tuple(draft.hazards))


def _changed(state: ApKernel, hardware: ApHardware) -> Outcome:
    return Outcome(replace(state, hardware=hardware))


def _boot_mask(text: str | None) -> ApMask:
    if text is None:
        return ApMask.full()
    try:
        return ApMask().changed(text)
    except KernelError:
        return ApMask()

"""A device as its system shows it, for its profile (`harness.model.profile`). Changes nothing."""

from __future__ import annotations

from harness.errors import MissingDevice
from harness.guest.sriov import Sriov
from harness.guest.system import System
from harness.model.pci import Bdf, PciFunction
from harness.model.profile import DeviceProfile, SeenDevice, SeenFunction

NO_VIRTUAL = "no virtual function is enabled (write a number to sriov_numvfs of {bdf})"


def look(system: System, profile: DeviceProfile, bdf: Bdf | None = None) -> SeenDevice:
    """Return the device at *bdf*, its physical function; None: the first with its id.

    Where only virtual functions are there (a guest), they are what is looked at.

    :raise MissingDevice: the system has none of the functions.
    """
    functions = system.functions()
    physical = _find(functions, profile, bdf)
    if physical is None:
        if bdf is None and (virtual := _strays(functions, profile)):
            why = f"{system.name} shows virtual functions only"
            return SeenDevice(None, seen(system, virtual), why_no_physical=why, standalone=True)
        what = f"function at {bdf}" if bdf else f"{profile.physical.id} or {profile.virtual.id}"
        raise MissingDevice(
            f"{system.name} has no {what}",
            hint=f"{profile.name} ({profile.title}) is judged where it is; --bdf names another",
        )
    family = Sriov(system, physical.bdf)
    has_it = family.has("totalvfs")
    found = seen(system, family.virtual()) if has_it else ()
    why = NO_VIRTUAL.format(bdf=physical.bdf) if has_it else "the function has no SR-IOV here"
    return SeenDevice(
        physical=seen(system, [physical])[0],
        virtual=found,
        driver_total=int(family.read("totalvfs")) if has_it else None,
        why_no_virtual=why,
    )


def seen(system: System, functions: tuple[PciFunction, ...] | list[PciFunction]) -> tuple[
    SeenFunction, ...
]:  # fmt: skip
    """Return *functions* with what else the system says of them."""
    return tuple(SeenFunction(one, system.reset_methods(one.bdf)) for one in functions)


def _find(
    functions: tuple[PciFunction, ...], profile: DeviceProfile, bdf: Bdf | None
) -> PciFunction | None:
    wanted = profile.physical.id
    return next(
        (
            one
            for one in functions
            if (one.bdf == bdf if bdf is not None else one.id == wanted and not _is_virtual(one))
        ),
        None,
    )


def _strays(functions: tuple[PciFunction, ...], profile: DeviceProfile) -> list[PciFunction]:
    return [one for one in functions if one.id == profile.virtual.id]


def _is_virtual(function: PciFunction) -> bool:
    """Say whether its configuration space has no ids (PCIe 6.0, 9.3.4.1.1)."""
    return function.config[:4] == b"\xff" * 4

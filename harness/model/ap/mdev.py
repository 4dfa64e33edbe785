"""Mediated devices of vfio_ap: made, filled, opened, reset, removed.

Texts are those written to sysfs, newline included; functions change a `Draft` and raise what
the kernel answers. The order of checks is the kernel's.
"""

from __future__ import annotations

import re
from dataclasses import replace

from harness.model.ap import vfio as ap_vfio
from harness.model.ap.errno import Errno, KernelError
from harness.model.ap.id import kstrtoul
from harness.model.ap.kernel import FREED, Draft, Mdev
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix

MAX_INSTANCES = 65536
"""``available_instances`` with no mdev there (``MAX_ZDEV_ENTRIES_EXT``)."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UUID_LENGTH = 36


def create(draft: Draft, text: str) -> None:
    """Make an mdev (``create_store``, ``mdev_device_create``).

    One character may follow the UUID, whichever it is.

    :raise KernelError: EINVAL, EEXIST, EUSERS.
    """
    uuid = text[:_UUID_LENGTH]
    if len(text) > _UUID_LENGTH + 1 or not _UUID.fullmatch(uuid):
        raise KernelError(Errno.EINVAL)
    uuid = uuid.lower()
    if draft.state.mdev(uuid) is not None:
        raise KernelError(Errno.EEXIST)
    if len(draft.state.mdevs) >= MAX_INSTANCES:
        raise KernelError(Errno.EUSERS)
    draft.set(mdevs=(Mdev(uuid), *draft.state.mdevs))


def remove(draft: Draft, uuid: str, text: str) -> bool:
    """Remove an mdev; return False if it blocks because a machine has it open.

    :raise KernelError: EINVAL for any text that is not a number, too large ones included.
    """
    try:
        number = kstrtoul(text)
    except KernelError as error:
        raise KernelError(Errno.EINVAL) from error
    if not number:
        return True
    mdev = ap_vfio.must(draft.state, uuid)
    if mdev.vm is not None:
        if draft.state.traits.remove_request_empties_guest:
            draft.set_mdev(uuid, crycb=ApMatrix())
        return False
    discard(draft, uuid)
    return True


def discard(draft: Draft, uuid: str) -> None:
    """Free an mdev (``vfio_ap_mdev_remove``)."""
    ap_vfio.reset_device(draft, uuid)
    linked = ap_vfio.must(draft.state, uuid).linked
    for apqn, queue in draft.state.queues.items():
        if queue.owner == uuid:
            draft.set_queue(apqn, owner=None if apqn in linked else FREED)
    draft.set(mdevs=tuple(one for one in draft.state.mdevs if one.uuid != uuid))


def assign_adapter(draft: Draft, uuid: str, text: str) -> None:
    """Add an adapter.

    :raise KernelError: EINVAL, ERANGE, ENODEV, EADDRNOTAVAIL, EADDRINUSE.
    """
    mdev = ap_vfio.must(draft.state, uuid)
    adapter = _number(text, draft.state.hardware.max_adapter)
    if adapter in mdev.assigned.adapters:
        return
    matrix = replace(mdev.assigned, adapters=mdev.assigned.adapters.with_bit(adapter))
    ap_vfio.validate(draft.state, mdev, matrix)
    draft.set_mdev(uuid, assigned=matrix)
    ap_vfio.link(draft, uuid, ApMatrix(ApMask.of([adapter]), matrix.domains))
    ap_vfio.refresh(draft, uuid)


def assign_domain(draft: Draft, uuid: str, text: str) -> None:
    """Add a usage domain.

    :raise KernelError: as for `assign_adapter`.
    """
    mdev = ap_vfio.must(draft.state, uuid)
    domain = _number(text, draft.state.hardware.max_domain)
    if domain in mdev.assigned.domains:
        return
    matrix = replace(mdev.assigned, domains=mdev.assigned.domains.with_bit(domain))
    ap_vfio.validate(draft.state, mdev, matrix)
    draft.set_mdev(uuid, assigned=matrix)
    ap_vfio.link(draft, uuid, ApMatrix(matrix.adapters, ApMask.of([domain])))
    ap_vfio.refresh(draft, uuid)


def unassign_adapter(draft: Draft, uuid: str, text: str) -> None:
    """Take an adapter away; what is left is not filtered anew.

    :raise KernelError: EINVAL, ERANGE, ENODEV.
    """
    mdev = ap_vfio.must(draft.state, uuid)
    adapter = _number(text, draft.state.hardware.max_adapter)
    if adapter in mdev.assigned.adapters:
        only = ApMask.of([adapter])
        draft.set_mdev(uuid, assigned=mdev.assigned.without_adapters(only))
        ap_vfio.unassign_adapters(draft, uuid, only)


def unassign_domain(draft: Draft, uuid: str, text: str) -> None:
    """Take a usage domain away; what is left is not filtered anew.

    :raise KernelError: EINVAL, ERANGE, ENODEV.
    """
    mdev = ap_vfio.must(draft.state, uuid)
    domain = _number(text, draft.state.hardware.max_domain)
    if domain in mdev.assigned.domains:
        only = ApMask.of([domain])
        draft.set_mdev(uuid, assigned=mdev.assigned.without_domains(only))
        ap_vfio.unassign_domains(draft, uuid, only)


def assign_control_domain(draft: Draft, uuid: str, text: str) -> None:
    """Add a control domain: nobody's leave is asked, it may be another mdev's too.

    :raise KernelError: EINVAL, ERANGE, ENODEV.
    """
    mdev = ap_vfio.must(draft.state, uuid)
    domain = _number(text, draft.state.hardware.max_domain)
    if domain not in mdev.assigned.control_domains:
        control = mdev.assigned.control_domains.with_bit(domain)
        draft.set_mdev(uuid, assigned=replace(mdev.assigned, control_domains=control))
        if ap_vfio.filter_control_domains(draft, uuid):
            ap_vfio.update_guest(draft, uuid)


def unassign_control_domain(draft: Draft, uuid: str, text: str) -> None:
    """Take a control domain away.

    :raise KernelError: EINVAL, ERANGE, ENODEV.
    """
    mdev = ap_vfio.must(draft.state, uuid)
    domain = _number(text, draft.state.hardware.max_domain)
    if domain in mdev.assigned.control_domains:
        assigned = mdev.assigned.control_domains.without_bit(domain)
        shadow = mdev.shadow.control_domains.without_bit(domain)
        draft.set_mdev(
            uuid,
            assigned=replace(mdev.assigned, control_domains=assigned),
            shadow=replace(mdev.shadow, control_domains=shadow),
        )
        if domain in mdev.shadow.control_domains:
            ap_vfio.update_guest(draft, uuid)


def configure(draft: Draft, uuid: str, text: str) -> None:
    """Replace all three masks at once (``ap_config_store``).

    :raise KernelError: EINVAL, EADDRNOTAVAIL, EADDRINUSE, and only then ENODEV for an id above
        the highest.
    """
    state, old = draft.state, ap_vfio.must(draft.state, uuid).assigned
    new = ApMatrix.config(text)
    ap_vfio.validate(state, ap_vfio.must(state, uuid), new)
    for mask, highest in (
        (new.adapters, state.hardware.max_adapter),
        (new.domains, state.hardware.max_domain),
        (new.control_domains, state.hardware.max_domain),
    ):
        if (mask.last or 0) > highest:
            raise KernelError(Errno.ENODEV)
    ap_vfio.unassign_adapters(draft, uuid, old.adapters - new.adapters)
    ap_vfio.unassign_domains(draft, uuid, old.domains - new.domains)
    draft.set_mdev(uuid, assigned=new)
    ap_vfio.link(draft, uuid, ApMatrix(new.adapters - old.adapters, new.domains))
    ap_vfio.link(draft, uuid, ApMatrix(new.adapters, new.domains - old.domains))
    changed, lost = ap_vfio.filter_matrix(draft, uuid)
    if ap_vfio.filter_control_domains(draft, uuid) or changed:
        ap_vfio.update_guest(draft, uuid)
        ap_vfio.reset_adapters(draft, uuid, lost)


def open_device(draft: Draft, uuid: str, vm: str | None) -> None:
    """Open the VFIO device for a virtual machine, None: for none.

    :raise KernelError: EBUSY, somebody has it open; EINVAL, no machine; EPERM, the machine has
        another vfio_ap device.
    """
    if ap_vfio.must(draft.state, uuid).vm is not None:
        raise KernelError(Errno.EBUSY)
    if vm is None:
        raise KernelError(Errno.EINVAL)
    if any(other.vm == vm for other in draft.state.mdevs):
        raise KernelError(Errno.EPERM)
    draft.set_mdev(uuid, vm=vm)
    ap_vfio.update_guest(draft, uuid)


def close_device(draft: Draft, uuid: str) -> None:
    """Close the VFIO device: the machine loses the queues, and they are reset."""
    if ap_vfio.must(draft.state, uuid).vm is not None:
        draft.set_mdev(uuid, vm=None, crycb=None)
        ap_vfio.reset_device(draft, uuid)


def _number(text: str, highest: int) -> int:
    number = kstrtoul(text)
    if number > highest:
        raise KernelError(Errno.ENODEV)
    return number

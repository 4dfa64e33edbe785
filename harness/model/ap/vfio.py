"""The vfio_ap driver: what is passed on to guests, and what takes it away.

Functions are named after those of drivers/s390/crypto/vfio_ap_ops.c and change a `Draft`.
"""

from __future__ import annotations

from dataclasses import replace

from harness.model.ap.errno import Errno, KernelError
from harness.model.ap.hardware import CEX4, ApConfiguration, Response
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import FREED, VFIO_AP, ApKernel, Draft, Mdev
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix

USE_AFTER_FREE = "vfio_ap reads an mdev that is freed, through a queue that was unassigned"
LOCK_AT_NULL = "vfio_ap takes the lock of a virtual machine that is not there"


def update_guest(draft: Draft, uuid: str) -> None:
    """Give the guest, if there is one, the shadow (``vfio_ap_mdev_update_guest_apcb``)."""
    mdev = must(draft.state, uuid)
    if mdev.vm is not None:
        draft.set_mdev(uuid, crycb=mdev.shadow)


def filter_matrix(draft: Draft, uuid: str) -> tuple[bool, ApMask]:
    """Compute the shadow anew: (did it change, adapters it lost though the host has them).

    Adapters and domains the host does not have go; then every adapter goes whole of which one
    queue is not bound to vfio_ap, or was not reset well.
    """
    state, mdev = draft.state, must(draft.state, uuid)
    host = _host(state)
    adapters = mdev.assigned.adapters & host.adapters
    domains = mdev.assigned.domains & host.domains
    for adapter in adapters:
        for domain in domains:
            apqn = Apqn(adapter, domain)
            if apqn not in mdev.linked or not state.queues[apqn].passable:
                adapters = adapters.without_bit(adapter)
                break
    before = mdev.shadow
    shadow = ApMatrix(adapters, domains, before.control_domains)
    draft.set_mdev(uuid, shadow=shadow)
    lost = (before.adapters & mdev.assigned.adapters & host.adapters) - adapters
    return shadow != before, lost


def filter_control_domains(draft: Draft, uuid: str) -> bool:
    """Take the assigned control domains that the host has; say whether that changed some."""
    mdev = must(draft.state, uuid)
    control = mdev.assigned.control_domains & _host(draft.state).control_domains
    draft.set_mdev(uuid, shadow=replace(mdev.shadow, control_domains=control))
    return control != mdev.shadow.control_domains


def refresh(draft: Draft, uuid: str) -> None:
    """Filter, tell the guest of a change, reset what the guest lost by it."""
    changed, lost = filter_matrix(draft, uuid)
    if changed:
        update_guest(draft, uuid)
        reset_adapters(draft, uuid, lost)


def reset_adapters(draft: Draft, uuid: str, adapters: ApMask) -> None:
    """Reset the queues of *adapters* in the guest's domains (``reset_queues_for_apids``)."""
    mdev = must(draft.state, uuid)
    for adapter in adapters:
        for domain in mdev.shadow.domains:
            if (apqn := Apqn(adapter, domain)) in mdev.linked:
                reset_queue(draft, apqn)


def reset_queue(draft: Draft, apqn: Apqn) -> None:
    """Zap a queue and note how that ended."""
    draft.set_queue(apqn, reset=draft.state.hardware.zapq(apqn))


def reset_device(draft: Draft, uuid: str) -> bool:
    """Reset all linked queues; say whether all ended well (``vfio_ap_mdev_reset_queues``).

    Not well, for this, is also a queue that is deconfigured or checkstopped.
    """
    linked = must(draft.state, uuid).linked
    for apqn in sorted(linked):
        reset_queue(draft, apqn)
    return all(draft.state.queues[apqn].reset == Response.NORMAL for apqn in linked)


# Assignment.


def verify_no_sharing(state: ApKernel, matrix: ApMatrix, assignee: Mdev | None) -> None:
    """Refuse queues of another mdev: for an mdev, or (None) for the default drivers.

    :raise KernelError: EADDRINUSE, with the lines logged for the first mdev in the way.
    """
    for other in state.mdevs:
        if assignee is not None and other.uuid == assignee.uuid:
            continue
        shared = matrix.shared(other.assigned)
        if not len(shared):
            continue
        if assignee is None:
            lines = (
                f"Can not reserve queue {apqn} for host driver: in use by mdev" for apqn in shared
            )
        else:
            lines = (
                f"Userspace may not assign queue {apqn} to mdev: already assigned to {other.uuid}"
                for apqn in shared
            )
        raise KernelError(Errno.EADDRINUSE, log=tuple(lines))


def validate(state: ApKernel, mdev: Mdev, matrix: ApMatrix) -> None:
    """Refuse a matrix with queues of the default drivers first, of another mdev then.

    :raise KernelError: EADDRNOTAVAIL, EADDRINUSE.
    """
    if any(state.owned_by_default(apqn) for apqn in matrix):
        raise KernelError(Errno.EADDRNOTAVAIL)
    verify_no_sharing(state, matrix, mdev)


def link(draft: Draft, uuid: str, queues: ApMatrix) -> None:
    """Link those of *queues* that are bound to vfio_ap to their mdev."""
    bound = {apqn for apqn in queues if _is_bound(draft.state, apqn)}
    for apqn in bound:
        draft.set_queue(apqn, owner=uuid)
    draft.set_mdev(uuid, linked=must(draft.state, uuid).linked | bound)


def hot_unplug(draft: Draft, uuid: str, queues: ApMatrix, shadow: ApMatrix) -> None:
    """Unlink *queues*, make *shadow* the guest's, reset what the guest had.

    ``vfio_ap_mdev_hot_unplug_adapters`` and ``…_domains``. Queues that the guest did not have
    keep their pointer to the mdev.
    """
    mdev = must(draft.state, uuid)
    gone = mdev.linked.intersection(queues)
    had = [apqn for apqn in queues if apqn in gone and apqn in mdev.shadow]
    draft.set_mdev(uuid, linked=mdev.linked - gone, shadow=shadow)
    if shadow != mdev.shadow:
        update_guest(draft, uuid)
    for apqn in had:
        reset_queue(draft, apqn)
        draft.set_queue(apqn, owner=None)


def unassign_adapters(draft: Draft, uuid: str, adapters: ApMask) -> None:
    """Take *adapters* and their queues from the shadow; the caller has ``assigned``."""
    mdev = must(draft.state, uuid)
    queues = ApMatrix(adapters, mdev.assigned.domains)
    hot_unplug(draft, uuid, queues, mdev.shadow.without_adapters(adapters))


def unassign_domains(draft: Draft, uuid: str, domains: ApMask) -> None:
    """Take *domains* and their queues from the shadow; the caller has ``assigned``."""
    mdev = must(draft.state, uuid)
    queues = ApMatrix(mdev.assigned.adapters, domains)
    hot_unplug(draft, uuid, queues, mdev.shadow.without_domains(domains))


# Queues come and go.


def probe_queue(draft: Draft, apqn: Apqn) -> None:
    """Bind a queue to vfio_ap (``vfio_ap_mdev_probe_queue``)."""
    draft.set_queue(apqn, driver=VFIO_AP, reset=Response.NORMAL, owner=None)
    mdev = draft.state.mdev_of(apqn)
    if mdev is None:
        return
    draft.set_queue(apqn, owner=mdev.uuid)
    draft.set_mdev(mdev.uuid, linked=mdev.linked | {apqn})
    gained = draft.pending.get(mdev.uuid)
    # What the host just gained is filtered at the end of the scan.
    if gained is None or not (gained.adapters or gained.domains):
        refresh(draft, mdev.uuid)


def remove_queue(draft: Draft, apqn: Apqn) -> None:
    """Unbind a queue from vfio_ap (``vfio_ap_mdev_remove_queue``)."""
    queue = draft.state.queues[apqn]
    mdev = None if queue.owner is None else draft.state.mdev(queue.owner)
    if queue.owner == FREED:
        draft.hazards.append(f"{USE_AFTER_FREE}: {apqn}")
    host = _host(draft.state)
    if mdev is not None and apqn in mdev.shadow:
        only = ApMask.of([apqn.adapter])
        draft.set_mdev(mdev.uuid, shadow=mdev.shadow.without_adapters(only))
        update_guest(draft, mdev.uuid)
        reset_adapters(draft, mdev.uuid, only)
    elif apqn.adapter in host.adapters and apqn.domain in host.domains:
        reset_queue(draft, apqn)
    if mdev is not None:
        linked = must(draft.state, mdev.uuid).linked
        draft.set_mdev(mdev.uuid, linked=linked - {apqn})
    draft.set_queue(apqn, driver=None, reset=Response.NORMAL, owner=None)


# The host's configuration changes.


def on_configuration_changed(draft: Draft, new: ApConfiguration, old: ApConfiguration) -> None:
    """Take from guests what the host lost, and note what it gained, before devices change."""
    aprem, aqrem = old.adapters - new.adapters, old.domains - new.domains
    cdrem = old.control_domains - new.control_domains
    if aprem or aqrem or cdrem:
        for mdev in draft.state.mdevs:
            _lose(draft, mdev, aprem, aqrem, cdrem)
    if draft.state.mdevs:
        _gain(draft, new, old)
    draft.set(vfio_configuration=new)


def on_scan_complete(draft: Draft) -> None:
    """Plug into guests what the host gained (``vfio_ap_mdev_hot_plug_cfg``)."""
    for uuid, gained in draft.pending.items():
        _note_lock(draft, must(draft.state, uuid))
        changed, lost = False, ApMask()
        if gained.adapters or gained.domains:
            changed, lost = filter_matrix(draft, uuid)
        if gained.control_domains:
            changed = filter_control_domains(draft, uuid) or changed
        if changed:
            update_guest(draft, uuid)
        reset_adapters(draft, uuid, lost)
    draft.pending.clear()


def _lose(draft: Draft, mdev: Mdev, aprem: ApMask, aqrem: ApMask, cdrem: ApMask) -> None:
    _note_lock(draft, mdev)
    traits, shadow = draft.state.traits, mdev.shadow
    rest = ApMatrix(
        shadow.adapters - aprem,
        shadow.domains - aqrem,
        shadow.control_domains - cdrem
        if traits.host_takes_control_domains
        else shadow.control_domains,
    )
    draft.set_mdev(mdev.uuid, shadow=rest)
    if traits.empty_matrix_reaches_guest:
        tell = rest != shadow
    else:
        tell = any(
            (
                aprem & mdev.assigned.adapters and rest.adapters,
                aqrem & mdev.assigned.domains and rest.domains,
                cdrem - mdev.assigned.control_domains and rest.control_domains,
            )
        )
    if tell:
        update_guest(draft, mdev.uuid)


def _gain(draft: Draft, new: ApConfiguration, old: ApConfiguration) -> None:
    domains = new.domains - old.domains
    adapters = new.adapters - old.adapters
    if domains:
        cards = draft.state.hardware.cards
        adapters = ApMask.of(one for one in adapters if cards[one].hwtype >= CEX4)
    control = new.control_domains - old.control_domains
    for mdev in draft.state.mdevs:
        gained = ApMatrix(
            mdev.assigned.adapters & adapters,
            mdev.assigned.domains & domains,
            mdev.assigned.control_domains & control,
        )
        if gained.adapters or gained.domains or gained.control_domains:
            draft.pending[mdev.uuid] = gained


def _note_lock(draft: Draft, mdev: Mdev) -> None:
    if mdev.vm is None and not draft.state.traits.locks_of_no_guest:
        draft.hazards.append(f"{LOCK_AT_NULL}: {mdev.uuid}")


def _is_bound(state: ApKernel, apqn: Apqn) -> bool:
    queue = state.queues.get(apqn)
    return queue is not None and queue.driver == VFIO_AP


def _host(state: ApKernel) -> ApConfiguration:
    if state.vfio_configuration is None:
        raise KernelError(Errno.ENOENT)
    return state.vfio_configuration


def must(state: ApKernel, uuid: str) -> Mdev:
    """Return the mdev of *uuid*.

    :raise KernelError: ENOENT, there is none.
    """
    mdev = state.mdev(uuid)
    if mdev is None:
        raise KernelError(Errno.ENOENT)
    return mdev

"""The AP bus: masks, scans, devices, and which driver has which queue.

Functions are named after those of drivers/s390/crypto/ap_bus.c and change a `Draft`.
"""

from __future__ import annotations

import re

from harness.model.ap import mdev as ap_mdev
from harness.model.ap import vfio as ap_vfio
from harness.model.ap.errno import Errno, KernelError
from harness.model.ap.hardware import CEX4, CEX8, Card, Response
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import DEFAULT_DRIVER, VFIO_AP, CardDevice, Draft, QueueDevice
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix

OVERRIDE_STAYS = "a queue went with its driver override, which the bus goes on counting"
"""No mask can be written any more until the next boot (7.2.13)."""
_INTEGER = re.compile(r"\s*([+-]?[0-9]+)")


def store_apmask(draft: Draft, text: str) -> None:
    """Write apmask.

    :raise KernelError: EINVAL; EBUSY, a queue of an mdev would go to the default drivers.
    """
    _refuse_beside_override(draft)
    old, new = draft.state.apmask, draft.state.apmask.changed(text)
    every = draft.state.traits.masks_ask_for_any_queue
    domains = ApMask.full() if every else draft.state.aqmask
    _verify_reservations(draft, ApMatrix(new - old, domains))
    draft.set(apmask=new)
    if new != old:
        revise_bindings(draft)


def store_aqmask(draft: Draft, text: str) -> None:
    """Write aqmask; see `store_apmask`.

    :raise KernelError: EINVAL, EBUSY.
    """
    _refuse_beside_override(draft)
    old, new = draft.state.aqmask, draft.state.aqmask.changed(text)
    every = draft.state.traits.masks_ask_for_any_queue
    adapters = ApMask.full() if every else draft.state.apmask
    _verify_reservations(draft, ApMatrix(adapters, new - old))
    draft.set(aqmask=new)
    if new != old:
        revise_bindings(draft)


def store_config_time(draft: Draft, text: str) -> None:
    """Write config_time: seconds between scans, 5 to 120.

    :raise KernelError: EINVAL.
    """
    match = _INTEGER.match(text)
    if match is None or not 5 <= int(match[1]) <= 120:
        raise KernelError(Errno.EINVAL)
    draft.set(config_time=int(match[1]))


def store_override(draft: Draft, apqn: Apqn, text: str) -> None:
    """Write a queue's driver_override; nothing is bound anew by that.

    :raise KernelError: EINVAL, a mask is not all ones; ENOENT, no such queue or attribute.
    """
    if apqn not in draft.state.queues or not draft.state.traits.driver_override:
        raise KernelError(Errno.ENOENT)
    if draft.state.masks_in_use:
        raise KernelError(Errno.EINVAL)
    name = text.split("\n")[0]
    had = bool(draft.state.queues[apqn].override)
    draft.set(overrides=draft.state.overrides + bool(name) - had)
    draft.set_queue(apqn, override=name)


def bind(draft: Draft, driver: str, text: str) -> None:
    """Write a queue's name to ``drivers/<driver>/bind``.

    :raise KernelError: ENODEV, no such queue, or it belongs to the other pool; EBUSY, bound.
    """
    apqn = _queue_named(draft, text)
    if draft.state.queues[apqn].driver is not None:
        raise KernelError(Errno.EBUSY)
    if not _probe(draft, apqn, driver):
        raise KernelError(Errno.ENODEV)


def unbind(draft: Draft, driver: str, text: str) -> None:
    """Write a queue's name to ``drivers/<driver>/unbind``.

    :raise KernelError: ENODEV, no such queue, or the driver does not have it.
    """
    apqn = _queue_named(draft, text)
    if draft.state.queues[apqn].driver != driver:
        raise KernelError(Errno.ENODEV)
    detach(draft, apqn)


def load_driver(draft: Draft, driver: str) -> None:
    """Load a driver: it gets the queues of its pool that have none."""
    if driver in draft.state.drivers:
        return
    draft.set(drivers=(*draft.state.drivers, driver))
    if driver == VFIO_AP:
        draft.set(vfio_configuration=draft.state.hardware.configuration)
    for apqn, queue in draft.state.queues.items():
        if queue.driver is None:
            _probe(draft, apqn, driver)


def unload_driver(draft: Draft, driver: str) -> None:
    """Unload a driver; mdevs go with vfio_ap.

    :raise KernelError: EAGAIN, a virtual machine has an mdev open.
    """
    if driver == VFIO_AP:
        if any(mdev.vm is not None for mdev in draft.state.mdevs):
            raise KernelError(Errno.EAGAIN)
        for mdev in draft.state.mdevs:
            ap_mdev.discard(draft, mdev.uuid)
    for apqn, queue in draft.state.queues.items():
        if queue.driver == driver:
            detach(draft, apqn)
    draft.set(drivers=tuple(one for one in draft.state.drivers if one != driver))
    if driver == VFIO_AP:
        draft.set(vfio_configuration=None)


def revise_bindings(draft: Draft) -> None:
    """Give queues to the pool they belong to now (``__ap_revise_reserved``).

    For a queue without a driver the kernel reads the flags of a driver at address 0, which is in
    the lowcore and 0: as if vfio_ap had it.
    """
    for apqn, queue in draft.state.queues.items():
        is_default = queue.driver == DEFAULT_DRIVER
        if draft.state.reserved(apqn) != is_default:
            if queue.driver is not None:
                detach(draft, apqn)
            _attach(draft, apqn)


def scan(draft: Draft) -> None:
    """Compare devices with the machine (``ap_scan_bus``)."""
    old, new = draft.state.configuration, draft.state.hardware.configuration
    draft.set(configuration=new)
    has_vfio = draft.state.vfio_configuration is not None
    if new != old and has_vfio:
        ap_vfio.on_configuration_changed(draft, new, old)
    for adapter in sorted({*draft.state.cards, *draft.state.hardware.cards}):
        _scan_adapter(draft, adapter)
    if new != old and has_vfio:
        ap_vfio.on_scan_complete(draft)


def detach(draft: Draft, apqn: Apqn) -> None:
    """Take a queue from its driver."""
    if draft.state.queues[apqn].driver == VFIO_AP:
        ap_vfio.remove_queue(draft, apqn)
    else:
        draft.set_queue(apqn, driver=None)


def _scan_adapter(draft: Draft, adapter: int) -> None:
    card = draft.state.hardware.cards.get(adapter)
    device = draft.state.cards.get(adapter)
    usable = draft.state.hardware.domains and adapter <= draft.state.hardware.max_adapter
    if card is None or not usable:
        if device is not None:
            _remove_card(draft, adapter)
        return
    if device is not None and (device.hwtype, device.mode) != (card.hwtype, card.mode):
        _remove_card(draft, adapter)
        device = None
    if device is None and not CEX4 <= card.hwtype <= CEX8:
        return
    known = CardDevice(
        card.hwtype,
        card.mode,
        configured=card.response != Response.DECONFIGURED,
        checkstopped=card.response == Response.CHECKSTOPPED,
    )
    draft.set(cards={**draft.state.cards, adapter: known})
    _scan_domains(draft, adapter, card)


def _scan_domains(draft: Draft, adapter: int, card: Card) -> None:
    hardware = draft.state.hardware
    for domain in range(hardware.max_domain + 1):
        apqn = Apqn(adapter, domain)
        queue = draft.state.queues.get(apqn)
        if domain not in hardware.domains:
            if queue is not None:
                _remove_queue_device(draft, apqn)
            continue
        stopped = card.response == Response.CHECKSTOPPED
        configured = card.response != Response.DECONFIGURED
        if queue is None:
            made = QueueDevice(configured=configured, checkstopped=stopped)
            draft.set(queues={**draft.state.queues, apqn: made})
            _attach(draft, apqn)
        elif stopped != queue.checkstopped:
            # One change a scan: the configuration is looked at in the next.
            draft.set_queue(apqn, checkstopped=stopped)
        else:
            draft.set_queue(apqn, configured=configured)


def _remove_card(draft: Draft, adapter: int) -> None:
    for apqn in [apqn for apqn in draft.state.queues if apqn.adapter == adapter]:
        _remove_queue_device(draft, apqn)
    cards = {number: card for number, card in draft.state.cards.items() if number != adapter}
    draft.set(cards=cards)


def _remove_queue_device(draft: Draft, apqn: Apqn) -> None:
    if draft.state.queues[apqn].override:
        draft.hazards.append(f"{OVERRIDE_STAYS}: {apqn}")
    if draft.state.queues[apqn].driver is not None:
        detach(draft, apqn)
    draft.set(queues={name: one for name, one in draft.state.queues.items() if name != apqn})


def _attach(draft: Draft, apqn: Apqn) -> None:
    for driver in draft.state.drivers:
        if _probe(draft, apqn, driver):
            return


def _probe(draft: Draft, apqn: Apqn, driver: str) -> bool:
    """Bind a queue if *driver* may have it (``ap_device_probe``); say whether it did."""
    override = draft.state.queues[apqn].override
    if override:
        if override != driver:
            return False
    elif draft.state.reserved(apqn) != (driver == DEFAULT_DRIVER):
        return False
    if driver == VFIO_AP:
        ap_vfio.probe_queue(draft, apqn)
    else:
        draft.set_queue(apqn, driver=driver)
    return True


def _verify_reservations(draft: Draft, wanted: ApMatrix) -> None:
    if VFIO_AP in draft.state.drivers:
        try:
            ap_vfio.verify_no_sharing(draft.state, wanted, None)
        except KernelError as error:
            raise KernelError(Errno.EBUSY, log=error.log) from error


def _refuse_beside_override(draft: Draft) -> None:
    if draft.state.traits.driver_override and draft.state.overrides:
        raise KernelError(Errno.EINVAL)


def _queue_named(draft: Draft, text: str) -> Apqn:
    try:
        apqn = Apqn.parse(text.removesuffix("\n"))
    except ValueError as error:
        raise KernelError(Errno.ENODEV) from error
    if apqn not in draft.state.queues:
        raise KernelError(Errno.ENODEV)
    return apqn

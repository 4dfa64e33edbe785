"""The attributes of the AP bus and of vfio_ap: which there are, what they show, what they take.

Paths are absolute. ``texts`` and ``links`` are what a real host must show in the same state;
counters that run by themselves (``scans``) are left out.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.model.ap import bus as ap_bus
from harness.model.ap import mdev as ap_mdev
from harness.model.ap.errno import Errno, KernelError
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import VFIO_AP, ApKernel, Draft, Mdev, Outcome

BUS = "/sys/bus/ap"
MATRIX = "/sys/devices/vfio_ap/matrix"
TYPE = f"{MATRIX}/mdev_supported_types/vfio_ap-passthrough"

_MDEV_WRITES: dict[str, Callable[[Draft, str, str], object]] = {
    "assign_adapter": ap_mdev.assign_adapter,
    "assign_domain": ap_mdev.assign_domain,
    "assign_control_domain": ap_mdev.assign_control_domain,
    "unassign_adapter": ap_mdev.unassign_adapter,
    "unassign_domain": ap_mdev.unassign_domain,
    "unassign_control_domain": ap_mdev.unassign_control_domain,
    "ap_config": ap_mdev.configure,
}
_BUS_WRITES: dict[str, Callable[[Draft, str], None]] = {
    "apmask": ap_bus.store_apmask,
    "aqmask": ap_bus.store_aqmask,
    "config_time": ap_bus.store_config_time,
}


def write(state: ApKernel, path: str, text: str) -> Outcome:
    """Return what becomes of *state* when *text* is written to *path* in one go.

    A refusal changes nothing. ENOENT: no such file; EACCES: one that is only shown.
    """
    draft = Draft(state)
    try:
        done = _write(draft, path, text)
    except KernelError as error:
        return Outcome(state, error.errno, log=error.log)
    return Outcome(
        draft.state,
        hazards=tuple(draft.hazards),
        blocks=not done,
    )


def read(state: ApKernel, path: str) -> str | Errno:
    """Return the text of *path*, or why it cannot be read."""
    known = texts(state)
    if path in known:
        return known[path]
    return Errno.EACCES if _takes_writes(state, path) else Errno.ENOENT


def texts(state: ApKernel) -> dict[str, str]:
    """Return every attribute that is modelled, with its exact text."""
    found = {f"{BUS}/{name}": text for name, text in _bus_texts(state).items()}
    for adapter, card in state.cards.items():
        place = f"{BUS}/devices/card{adapter:02x}"
        found[f"{place}/hwtype"] = f"{card.hwtype}\n"
        found[f"{place}/config"] = f"{card.configured:d}\n"
        found[f"{place}/chkstop"] = f"{card.checkstopped:d}\n"
    for apqn, queue in state.queues.items():
        place = f"{BUS}/devices/{apqn}"
        found[f"{place}/config"] = f"{queue.configured:d}\n"
        found[f"{place}/chkstop"] = f"{queue.checkstopped:d}\n"
        if state.traits.driver_override:
            found[f"{place}/driver_override"] = f"{queue.override}\n"
        if queue.driver == VFIO_AP:
            found[f"{place}/status"] = f"{queue_status(state, apqn)}\n"
    if VFIO_AP in state.drivers:
        found[f"{MATRIX}/features"] = "guest_matrix hotplug ap_config\n"
        free = ap_mdev.MAX_INSTANCES - len(state.mdevs)
        found[f"{TYPE}/available_instances"] = f"{free}\n"
        found[f"{TYPE}/device_api"] = "vfio-ap\n"
        found[f"{TYPE}/name"] = "VFIO AP Passthrough Device\n"
    for mdev in state.mdevs:
        found |= {f"{MATRIX}/{mdev.uuid}/{name}": text for name, text in mdev_texts(mdev).items()}
    return found


def links(state: ApKernel) -> dict[str, str | None]:
    """Return for every queue the driver its ``driver`` link names; None: there is no link."""
    return {f"{BUS}/devices/{apqn}/driver": queue.driver for apqn, queue in state.queues.items()}


def queue_status(state: ApKernel, apqn: Apqn) -> str:
    """Return what ``status`` of a queue of vfio_ap says (``status_show``)."""
    mdev = state.mdev_of(apqn)
    if mdev is None:
        return "unassigned"
    return "in use" if mdev.vm is not None and apqn in mdev.shadow else "assigned"


def _write(draft: Draft, path: str, text: str) -> bool:
    """Write, or refuse; return False if it blocks."""
    state = draft.state
    if not _takes_writes(state, path):
        raise KernelError(Errno.EACCES if path in texts(state) else Errno.ENOENT)
    place, _, name = path.rpartition("/")
    if place == BUS:
        if name == "scans":
            ap_bus.scan(draft)
        else:
            _BUS_WRITES[name](draft, text)
    elif path == f"{TYPE}/create":
        ap_mdev.create(draft, text)
    elif name in ("bind", "unbind"):
        driver = place.rpartition("/")[2]
        (ap_bus.bind if name == "bind" else ap_bus.unbind)(draft, driver, text)
    elif name == "driver_override":
        ap_bus.store_override(draft, Apqn.parse(place.rpartition("/")[2]), text)
    elif name == "remove":
        return ap_mdev.remove(draft, place.rpartition("/")[2], text)
    else:
        _MDEV_WRITES[name](draft, place.rpartition("/")[2], text)
    return True


def _takes_writes(state: ApKernel, path: str) -> bool:
    place, _, name = path.rpartition("/")
    if place == BUS:
        return name in _BUS_WRITES or name == "scans"
    if path == f"{TYPE}/create":
        return VFIO_AP in state.drivers
    if place.startswith(f"{BUS}/drivers/"):
        return name in ("bind", "unbind") and place.rpartition("/")[2] in state.drivers
    if name == "driver_override":
        return path in texts(state)
    owner, _, uuid = place.rpartition("/")
    known = owner == MATRIX and state.mdev(uuid) is not None
    return known and (name in _MDEV_WRITES or name == "remove")


def _bus_texts(state: ApKernel) -> dict[str, str]:
    bound = sum(queue.driver is not None for queue in state.queues.values())
    complete = " (complete)" if bound == len(state.queues) else ""
    return {
        "apmask": f"{state.apmask}\n",
        "aqmask": f"{state.aqmask}\n",
        "bindings": f"{bound}/{len(state.queues)}{complete}\n",
        "config_time": f"{state.config_time}\n",
        "ap_max_adapter_id": f"{state.hardware.max_adapter}\n",
        "ap_max_domain_id": f"{state.hardware.max_domain}\n",
        "ap_adapter_mask": f"{state.configuration.adapters}\n",
        "ap_usage_domain_mask": f"{state.configuration.domains}\n",
        "ap_control_domain_mask": f"{state.configuration.control_domains}\n",
    }


def mdev_texts(mdev: Mdev) -> dict[str, str]:
    """Return the attributes of a mediated device that can be read."""
    return {
        "matrix": mdev.assigned.matrix_text(),
        "guest_matrix": mdev.shadow.matrix_text(),
        "control_domains": mdev.assigned.control_domains_text(),
        "ap_config": mdev.assigned.config_text(),
    }

"""What a Linux host knows about its AP queues: masks, devices, drivers, mediated devices.

`ApKernel` is a value. `ApKernel.write` and the operations of `ap_operation` give the next
one, or the errno the kernel refuses with. Sources are those of Linux 6.12.107 and 7.2.12:
drivers/s390/crypto/{ap_bus,ap_queue,vfio_ap_ops,vfio_ap_drv}.c and drivers/vfio/mdev.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.model.ap.errno import Errno
from harness.model.ap.hardware import ApConfiguration, ApHardware, Mode, Response
from harness.model.ap.id import Apqn
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix

DEFAULT_DRIVER = "cex4queue"
"""The zcrypt driver of queues: gets those in both masks."""
VFIO_AP = "vfio_ap"
"""Gets all others."""

FREED = "freed"
"""Owner of a queue that points to an mdev that is no more."""

PASSABLE = frozenset({Response.NORMAL, Response.DECONFIGURED, Response.CHECKSTOPPED})
"""How the last reset of a queue may have ended for it to be passed on (``_queue_passable``)."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What differs between kernels, each named after the behaviour."""

    driver_override: bool
    """Queues have the attribute, and masks and overrides exclude each other (6.19)."""
    masks_ask_for_any_queue: bool
    """A mask bit is refused if any queue of that adapter or domain is in an mdev, whatever the
    other mask says (with driver_override)."""
    host_takes_control_domains: bool
    """A control domain that leaves the host leaves guests too. Without it the one that left is
    the one that stays (bitmap_andnot in vfio_ap_mdev_cfg_remove)."""
    empty_matrix_reaches_guest: bool
    """A guest loses the last adapter, domain or control domain with the host. Without it the
    result of bitmap_andnot, which says whether something is left, decides about the update."""
    locks_of_no_guest: bool
    """A host that changes does not take the lock of a virtual machine that is not there."""
    remove_request_empties_guest: bool
    """Removing an mdev in use takes the guest's queues before it lets go."""
    request_irqs: int
    """Interrupt indices of the VFIO device."""

    @classmethod
    def of_version(cls, version: tuple[int, ...]) -> Traits:
        """Return those of a kernel, known from its version alone.

        Read in the sources of 6.12.107 and 7.2.12 of Debian; what lies between is from commit
        texts. Probes are better where there is a host to ask: ``driver_override`` is an attribute
        of queues, and the number of interrupts is in VFIO_DEVICE_GET_INFO.
        """
        return cls(
            driver_override=version >= (6, 19),
            masks_ask_for_any_queue=version >= (6, 19),
            host_takes_control_domains=version >= (7, 2),
            empty_matrix_reaches_guest=version >= (7, 2),
            locks_of_no_guest=version >= (7, 2),
            remove_request_empties_guest=version >= (6, 16),
            request_irqs=2 if version >= (6, 16) else 1,
        )


@dataclass(frozen=True, slots=True)
class CardDevice:
    """``/sys/bus/ap/devices/cardNN``, as the last scan left it."""

    hwtype: int
    mode: Mode
    configured: bool
    checkstopped: bool


@dataclass(frozen=True, slots=True)
class QueueDevice:
    """``/sys/bus/ap/devices/NN.NNNN``."""

    configured: bool = True
    checkstopped: bool = False
    driver: str | None = None
    override: str = ""
    reset: int = Response.NORMAL
    """How the last reset by vfio_ap ended; NORMAL while there was none since it was bound."""
    owner: str | None = None
    """The mdev that vfio_ap notes in the queue; it may be kept longer than the link, even than
    the mdev (`FREED`)."""

    @property
    def passable(self) -> bool:
        """Say whether a guest may have it."""
        return self.reset in PASSABLE


@dataclass(frozen=True, slots=True)
class Mdev:
    """A mediated device of type vfio_ap-passthrough."""

    uuid: str
    assigned: ApMatrix = field(default_factory=ApMatrix)
    """What ``matrix`` and ``control_domains`` show."""
    shadow: ApMatrix = field(default_factory=ApMatrix)
    """What ``guest_matrix`` shows; its control domains are shown nowhere."""
    linked: frozenset[Apqn] = frozenset()
    """Its queues that are bound to vfio_ap (``qtable``)."""
    vm: str | None = None
    """The virtual machine that has it open."""
    crycb: ApMatrix | None = None
    """What that machine's CRYCB holds: the shadow as of the last update."""


@dataclass(frozen=True, slots=True)
class ApKernel:
    """The state. Mappings are never changed in place; queues and mdevs are in kernel order."""

    traits: Traits
    hardware: ApHardware
    configuration: ApConfiguration
    """QCI as of the last scan of the bus."""
    vfio_configuration: ApConfiguration | None = None
    """QCI as vfio_ap knows it; None while it is not loaded."""
    apmask: ApMask = field(default_factory=ApMask.full)
    aqmask: ApMask = field(default_factory=ApMask.full)
    cards: Mapping[int, CardDevice] = field(default_factory=dict)
    queues: Mapping[Apqn, QueueDevice] = field(default_factory=dict)
    mdevs: tuple[Mdev, ...] = ()
    """Newest first."""
    drivers: tuple[str, ...] = ()
    overrides: int = 0
    """``ap_driver_override_ctr``: counts overrides set, but not queues that go away with one."""
    config_time: int = 30

    def mdev(self, uuid: str) -> Mdev | None:
        """Return the mdev of *uuid*."""
        return next((one for one in self.mdevs if one.uuid == uuid), None)

    def mdev_of(self, apqn: Apqn) -> Mdev | None:
        """Return the mdev that *apqn* is assigned to."""
        return next((one for one in self.mdevs if apqn in one.assigned), None)

    def reserved(self, apqn: Apqn) -> bool:
        """Say whether both masks have it: then it belongs to the default drivers."""
        return apqn.adapter in self.apmask and apqn.domain in self.aqmask

    def owned_by_default(self, apqn: Apqn) -> bool:
        """Say whether assigning *apqn* is refused (``ap_owned_by_def_drv``).

        An override of a queue that is bound decides for it; one of an unbound queue is not
        seen, since only bound queues are looked up.
        """
        queue = self.queues.get(apqn)
        if queue is not None and queue.override and queue.driver is not None:
            return queue.driver == DEFAULT_DRIVER
        return self.reserved(apqn)

    @property
    def masks_in_use(self) -> bool:
        """Say whether a mask is not all ones: then no override may be set."""
        return not (self.apmask == ApMask.full() == self.aqmask)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an operation."""

    state: ApKernel
    errno: Errno | None = None
    log: tuple[str, ...] = ()
    """Lines of the kernel log, without time and source."""
    hazards: tuple[str, ...] = ()
    """Known defects of the kernel that the operation runs into."""
    blocks: bool = False
    """It does not return until the virtual machine closes the device; the state is the one
    meanwhile. Then it goes on by itself: apply it again."""


class Draft:
    """A state being changed: what kernel code does between taking and giving back its locks."""

    def __init__(self, state: ApKernel) -> None:
        self.state = state
        self.hazards: list[str] = []
        self.pending: dict[str, ApMatrix] = {}
        """What the host gained, by mdev, from the start of a scan to its end (``apm_add`` …)."""

    def set(self, **changes: object) -> None:
        """Replace fields of the state."""
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]

    def set_queue(self, apqn: Apqn, **changes: object) -> None:
        """Replace fields of a queue."""
        queue = replace(self.state.queues[apqn], **changes)  # type: ignore[arg-type]
        self.set(queues={**self.state.queues, apqn: queue})

    def set_mdev(self, uuid: str, **changes: object) -> Mdev:
        """Replace fields of an mdev and return it as it is now."""
        changed = {
            one.uuid: replace(one, **changes) if one.uuid == uuid else one  # type: ignore[arg-type]
            for one in self.state.mdevs
        }
        self.set(mdevs=tuple(changed.values()))
        return changed[uuid]

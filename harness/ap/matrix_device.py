"""Mediated matrix devices: which queues a guest is to have.

Source: drivers/s390/crypto/vfio_ap_ops.c of Linux, Documentation/arch/s390/vfio-ap.rst.
"""

from __future__ import annotations

from harness.ap.attributes import Attributes
from harness.errors import HostError

MATRIX = "/sys/devices/vfio_ap/matrix"
TYPE = f"{MATRIX}/mdev_supported_types/vfio_ap-passthrough"
UUIDS = tuple(f"{number:08x}-7ac3-4f1d-9a52-6f3d2f6c0a11" for number in range(1, 33))
"""Names for devices of tests: the same in every run."""


class MatrixParent:
    """The parent of all matrix devices: features, type, creation."""

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes

    @property
    def features(self) -> tuple[str, ...]:
        """What vfio_ap says it can do."""
        return tuple(self.attributes.read(f"{MATRIX}/features").split())

    def type_attribute(self, name: str) -> str:
        """Return an attribute of the only type (``device_api``, ``available_instances`` …)."""
        return self.attributes.read(f"{TYPE}/{name}")

    def try_create(self, uuid: str) -> str:
        """Ask for a device; return the errno, empty if it was made."""
        return self.attributes.write(f"{TYPE}/create", uuid)

    def create(self, uuid: str) -> MatrixDevice:
        """Make a device.

        :raise HostError: the kernel refused.
        """
        if error := self.try_create(uuid):
            raise HostError(f"matrix device {uuid} was not made: {error}")
        return MatrixDevice(self.attributes, uuid)

    @property
    def uuids(self) -> tuple[str, ...]:
        """Names of the devices there are."""
        return tuple(name for name in self.attributes.names(MATRIX) if len(name) == 36)


class MatrixDevice:
    """One mediated matrix device; every write returns the errno, empty if it was accepted."""

    def __init__(self, attributes: Attributes, uuid: str) -> None:
        self.attributes = attributes
        self.uuid = uuid

    @property
    def path(self) -> str:
        """Where it is in sysfs; what QEMU wants as ``sysfsdev``."""
        return f"{MATRIX}/{self.uuid}"

    @property
    def exists(self) -> bool:
        """Say whether it is still there."""
        return self.attributes.exists(self.path)

    @property
    def group(self) -> str:
        """Number of its IOMMU group."""
        return self.attributes.link(f"{self.path}/iommu_group")

    @property
    def cdev(self) -> str:
        """Name of its own file in /dev/vfio/devices, empty if the kernel makes none."""
        names = self.attributes.names(f"{self.path}/vfio-dev")
        return names[0] if names else ""

    # -- what is assigned ----------------------------------------------------------------------

    def read(self, name: str) -> str:
        """Return an attribute."""
        return self.attributes.read(f"{self.path}/{name}")

    def write(self, name: str, text: str, *, timeout: float = 60) -> str:
        """Write an attribute."""
        return self.attributes.write(f"{self.path}/{name}", text, timeout=timeout)

    @property
    def matrix(self) -> tuple[str, ...]:
        """Lines of ``matrix``."""
        return tuple(self.read("matrix").split())

    @property
    def guest_matrix(self) -> tuple[str, ...]:
        """Lines of ``guest_matrix``."""
        return tuple(self.read("guest_matrix").split())

    @property
    def control_domains(self) -> tuple[str, ...]:
        """Lines of ``control_domains``."""
        return tuple(self.read("control_domains").split())

    @property
    def ap_config(self) -> str:
        """Adapters, domains and control domains, as three masks."""
        return self.read("ap_config")

    # -- changing it ---------------------------------------------------------------------------

    def assign_adapter(self, adapter: int | str) -> str:
        """Assign an adapter."""
        return self.write("assign_adapter", _number(adapter))

    def unassign_adapter(self, adapter: int | str) -> str:
        """Take an adapter away."""
        return self.write("unassign_adapter", _number(adapter))

    def assign_domain(self, domain: int | str) -> str:
        """Assign a usage domain."""
        return self.write("assign_domain", _number(domain))

    def unassign_domain(self, domain: int | str) -> str:
        """Take a usage domain away."""
        return self.write("unassign_domain", _number(domain))

    def assign_control_domain(self, domain: int | str) -> str:
        """Assign a control domain."""
        return self.write("assign_control_domain", _number(domain))

    def unassign_control_domain(self, domain: int | str) -> str:
        """Take a control domain away."""
        return self.write("unassign_control_domain", _number(domain))

    def configure(
        self,
        *,
        adapters: tuple[int, ...] = (),
        domains: tuple[int, ...] = (),
        control: tuple[int, ...] = (),
    ) -> MatrixDevice:
        """Assign all of these; return the device.

        :raise HostError: the kernel refused one.
        """
        wanted = [
            *(("assign_adapter", adapter) for adapter in adapters),
            *(("assign_domain", domain) for domain in domains),
            *(("assign_control_domain", domain) for domain in control),
        ]
        for name, number in wanted:
            self.attributes.must_write(f"{self.path}/{name}", _number(number))
        return self

    def remove(self, *, timeout: float = 60) -> str:
        """Remove it; waits as long as a guest has it."""
        return self.write("remove", "1", timeout=timeout)


def _number(number: int | str) -> str:
    return number if isinstance(number, str) else hex(number)

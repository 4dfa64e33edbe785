"""A piece of an AP bus that a test may use, on any host: adapters, domains, matrix devices.

On an AP host of ours it is what the examples use. On a machine that others use too it is what
nobody has (`harness.ap.lease`): masks stay as they are, no queue changes its driver.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.ap.attributes import Attributes
from harness.ap.bus import ApBus
from harness.ap.matrix_device import UUIDS, MatrixDevice, MatrixParent

PLOT_UUIDS = UUIDS[-4:]
"""Names of the matrix devices that are made on such a piece."""


@dataclass(frozen=True, slots=True)
class Plot:
    """The piece: every queue of *adapters* times *domains* is with vfio_ap and in no device."""

    attributes: Attributes
    adapters: tuple[int, ...]
    domains: tuple[int, ...]

    @property
    def bus(self) -> ApBus:
        """The bus it is of."""
        return ApBus(self.attributes)

    def device(self) -> MatrixDevice:
        """Make a matrix device.

        :raise StopIteration: there are four already.
        """
        parent = MatrixParent(self.attributes)
        there = parent.uuids
        return parent.create(next(uuid for uuid in PLOT_UUIDS if uuid not in there))

    def clear(self) -> None:
        """Remove the devices that were made on it."""
        there = MatrixParent(self.attributes).uuids
        for uuid in PLOT_UUIDS:
            if uuid in there:
                path = MatrixDevice(self.attributes, uuid).path
                self.attributes.must_write(f"{path}/remove", "1")

"""A defect of QEMU, shown: who reads ``info mtree -f`` keeps devices from leaving.

Not part of a default run; see docs/findings/info-mtree-leaks-flat-views.md.
"""

import pytest

from harness.lab.assigned import Assigned
from harness.testing import only


@only("nvme")
@pytest.mark.usefixtures("never_read")
@pytest.mark.parametrize("reads", [0, 1])
def test_device_leaves_after_the_map_was_read(reads: int, assigned: Assigned) -> None:
    """``device_del`` ends with DEVICE_DELETED, however often the map was read before."""
    for _ in range(reads):
        assigned.memory_map()

    with assigned.unplugged():
        pass

"""A defect of QEMU, shown: eleven equal writes to NVIDIA's mirror end it.

Not part of a default run; see docs/findings/nvidia-eventfd-twice.md.
"""

from harness.errors import MachineDied
from harness.lab.shape_host import ShapeMachine
from suites.named_shapes.test_quirks import moved


def survives(machine: ShapeMachine, count: int) -> bool:
    """Make *count* equal writes; say whether QEMU is there afterwards."""
    try:
        moved(machine, "nvidia", [0x66] * count)
    except MachineDied:
        return False
    return True


def test_equal_writes_do_not_end_qemu(plain: ShapeMachine) -> None:
    """However often the same is written, QEMU lives."""
    assert survives(plain, 20)

"""Maps of the lab's own devices, written down by hand.

They say the same as the oracle of ``test_map`` by other means: if the oracle and QEMU were
wrong in the same way, these would still know.
"""

from collections.abc import Mapping

import pytest

from harness.lab.assigned import Assigned
from harness.testing import must_fail
from suites.vfio_pci.layout import Row, check_layout

NVME = [
    (0x0000, 0x1FFF, "ramd", "BAR 0 mmaps[0]", True),
    (0x2000, 0x240F, "i/o", "msix-table", False),
    (0x2410, 0x3FFF, "ramd", "BAR 0 mmaps[0]", False),
]
"""65 vectors; page 2 is mixed."""
E1000E = [
    (0x0000, 0x004F, "i/o", "msix-table", False),
    (0x0050, 0x3FFF, "ramd", "BAR 3 mmaps[0]", False),
]
"""5 vectors; page 0 is mixed."""
IGB = [
    (0x0000, 0x009F, "i/o", "msix-table", False),
    (0x00A0, 0x3FFF, "ramd", "BAR 3 mmaps[0]", False),
]
"""10 vectors; page 0 is mixed."""
EDU = [(0x0, 0xFFFFF, "ramd", "BAR 0 mmaps[0]", True)]
"""No MSI-X."""


LAYOUTS = [
    pytest.param("nvme", 0, NVME, marks=pytest.mark.rule("NST-05")),
    pytest.param("e1000e", 3, E1000E, marks=pytest.mark.rule("NST-09")),
    pytest.param("igb", 3, IGB, marks=pytest.mark.rule("NST-09")),
    pytest.param("edu", 0, EDU, marks=pytest.mark.rule("NST-12")),
]
WRONG = [
    pytest.param("nvme", 0, NVME, marks=pytest.mark.negative_control("NST-05")),
    pytest.param("e1000e", 3, E1000E, marks=pytest.mark.negative_control("NST-09")),
    pytest.param("edu", 0, EDU, marks=pytest.mark.negative_control("NST-12")),
]


@pytest.mark.parametrize(("assigned", "bar", "rows"), LAYOUTS, indirect=["assigned"])
def test_layout_is_the_known_one(assigned: Assigned, bar: int, rows: list[Row]) -> None:
    """The rows of the BAR are those that the device model is known to lead to."""
    check_layout(assigned, bar, rows, assigned.memory_map())


@pytest.mark.parametrize(("name", "bar", "rows"), WRONG)
def test_other_layout_is_noticed(
    variants: Mapping[str, Assigned], name: str, bar: int, rows: list[Row]
) -> None:
    """The check fails on the same device mapped in another way."""
    with must_fail():
        check_layout(variants[name], bar, rows, variants[name].memory_map())

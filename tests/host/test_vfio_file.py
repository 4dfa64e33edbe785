"""What user space sees of a function, read from the helper's words."""

import pytest

from harness.errors import ParseError
from harness.host.vfio_file import MSIX_MAPPABLE, VfioRegion, parse_vfio_info

SAID = """\
command=0x0002
bus_master=0
memory=1
flags=0x3
reset=yes
regions=9
irqs=5
region=0 size=0x4000 flags=0xf read=yes write=yes mmap=yes caps=3
region=2 size=0x20 flags=0x3 read=yes write=yes mmap=no caps=none
irq=0 count=1 flags=0x7
"""


def test_regions_and_the_command_register_are_read() -> None:
    info = parse_vfio_info(SAID)

    assert not info.bus_master
    assert info.can_reset
    assert info.region(0) == VfioRegion(0, 0x4000, True, (MSIX_MAPPABLE,))
    assert info.region(2).capabilities == ()


def test_an_answer_without_the_command_register_is_refused() -> None:
    with pytest.raises(ParseError, match="command"):
        parse_vfio_info(SAID.replace("command", "order"))

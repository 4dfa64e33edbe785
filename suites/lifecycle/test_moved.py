"""BARs that move: the map follows, away from where they were, wherever they go.

Nothing runs in these machines: what firmware or a guest would write to the registers of an
assigned function the test writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from harness.host.host import Host
from harness.lab.assigned import Assigned
from harness.lab.bare import Bare
from harness.model.address import AddressRange
from harness.model.expectation import row_text
from harness.model.memory_map import MemoryMap, Region
from harness.suite_fixtures import Free
from harness.testing import must_fail
from suites.lifecycle.conftest import StartBare, on_root_bus

pytestmark = pytest.mark.full

SLOT = 0x10
COMMAND = 0x04
ABOVE = 0x3_2000_0000
"""An address that 32 bits do not hold."""

each_device = pytest.mark.parametrize("moving", ["nvme", "e1000e", "igb", "edu"], indirect=True)


@dataclass(frozen=True, slots=True)
class Moving:
    """A function whose registers the test writes."""

    bare: Bare
    assigned: Assigned

    def program(self, at: Mapping[int, int] | None = None) -> dict[int, int]:
        """Put its BARs where nothing was before, or *at* addresses; return where they are."""
        return self.bare.program(SLOT, self.assigned.function.bars, at=at)

    def decode(self, *, on: bool) -> None:
        """Write its command register: memory, ports, bus master, or none of them."""
        self.bare.registers(SLOT).write(COMMAND, 7 if on else 0)

    def reset(self) -> None:
        """Reset the machine, as a reboot does."""
        machine = self.bare.machine
        mark = machine.qmp.mark()
        machine.qmp.execute("system_reset")
        machine.qmp.wait_event("RESET", timeout=30, since=mark)

    def rows(self) -> list[Region]:
        """Return all rows that it has in any view now."""
        return self.bare.rows(self.assigned.name)

    def windows(self, addresses: Mapping[int, int]) -> list[AddressRange]:
        """Return what those of its memory BARs take up that are at *addresses*."""
        bars = [bar for bar in self.assigned.function.bars if bar.is_memory]
        there = [bar for bar in bars if bar.index in addresses]
        return [AddressRange(addresses[bar.index], bar.size) for bar in there]


@pytest.fixture
def moving(request: pytest.FixtureRequest, host: Host, free: Free, bare: StartBare) -> Moving:
    """The test device of the parameter, in a machine where nobody has programmed it."""
    name: str = request.param
    function = free(name)
    machine = bare(on_root_bus(name, SLOT, function))
    return Moving(machine, Assigned(name, function, host, machine.machine))


def check_gone(rows: list[Region]) -> None:
    """Nothing of the function is in the map."""
    assert not rows, f"{len(rows)} rows: {', '.join(map(row_text, rows))}"


def check_moved(
    moving: Moving, addresses: Mapping[int, int], left: Mapping[int, int], found: MemoryMap
) -> None:
    """Every byte of every BAR is where it was put, and nothing where it was before."""
    where = moving.assigned.machine.bar_addresses(moving.assigned.name)
    assert where == addresses, f"query-pci says {where}, written was {addresses}"
    expected = moving.assigned.expectation()
    assert not expected.compare(found), expected.explain(found)
    rows = [row for window in moving.windows(left) for row in found.memory.covering(window)]
    assert not rows, f"still there: {', '.join(map(row_text, rows))}"


@each_device
@pytest.mark.rule("MAP-27", "MAP-28")
@pytest.mark.negative_control("MAP-27", "MAP-28")
def test_map_follows_a_function_that_moves(moving: Moving) -> None:
    """BARs that were written anew while decoding was off are mapped there, and only there."""
    first = moving.program()
    before = moving.assigned.memory_map()
    with must_fail():
        check_gone(moving.rows())

    moving.decode(on=False)
    check_gone(moving.rows())

    second = moving.program()
    check_moved(moving, second, first, moving.assigned.memory_map())
    with must_fail():
        check_moved(moving, second, first, before)


@each_device
@pytest.mark.rule("MAP-27", "MAP-28")
@pytest.mark.negative_control("MAP-28")
def test_a_function_is_mapped_where_it_was_again(moving: Moving) -> None:
    """Decoding switched off and on brings back each byte where it was."""
    addresses = moving.program()

    moving.decode(on=False)
    without = moving.assigned.memory_map()
    moving.decode(on=True)

    check_moved(moving, addresses, {}, moving.assigned.memory_map())
    with must_fail():
        check_moved(moving, addresses, {}, without)


WHILE_DECODING = [("nvme", {0: ABOVE}), ("e1000e", None), ("edu", None)]


@pytest.mark.parametrize(("moving", "at"), WHILE_DECODING, indirect=["moving"])
@pytest.mark.rule("MAP-28")
@pytest.mark.negative_control("MAP-28")
def test_map_follows_while_a_function_decodes(
    moving: Moving, at: Mapping[int, int] | None
) -> None:
    """BARs that are written while they decode are followed too, one register after the other."""
    first = moving.program()
    before = moving.assigned.memory_map()

    second = moving.program(at)

    check_moved(moving, second, first, moving.assigned.memory_map())
    with must_fail():
        check_moved(moving, second, first, before)


@each_device
@pytest.mark.rule("RST-08", "MAP-28")
@pytest.mark.negative_control("RST-08", "MAP-28")
def test_map_after_a_reset(moving: Moving) -> None:
    """A reset, of whichever kind, takes each BAR from the map; programmed anew it is all there."""
    first = moving.program()
    before = moving.assigned.memory_map()
    with must_fail():
        check_gone(moving.rows())

    moving.reset()
    check_gone(moving.rows())

    second = moving.program()
    check_moved(moving, second, first, moving.assigned.memory_map())
    with must_fail():
        check_moved(moving, second, first, before)

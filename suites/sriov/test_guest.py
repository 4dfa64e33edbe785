"""A virtual function of an igb in a guest: it works, alone, and when it must go it is asked.

The peer is the other end of the card's wire; it counts who asks it for an echo.
"""

from collections.abc import Iterator

import pytest

from harness.guest.guest import Guest
from harness.guest.sriov import Sriov
from harness.guest.system import System
from harness.lab.sriov_stage import SriovStage
from harness.lab.wire import ADDRESS, Wire
from harness.model.pci import Bdf
from harness.testing import must_fail
from suites.sriov.conftest import Family

pytestmark = pytest.mark.full

OURS = "198.51.100.7"
PINGS = 5
MEMORY_SPACE = 1 << 1
"""Of the command register."""
EDU_PORT = "rp4"


@pytest.fixture
def wire(stage: SriovStage) -> Wire:
    """The wire of the igb."""
    assert stage.wire is not None
    return stage.wire


@pytest.fixture
def given(stage: SriovStage, family: Family) -> Iterator[Bdf]:
    """The first virtual function in the guest, where its driver has it; where it is there."""
    with stage.given(family.virtual[0], "net/*") as bdf:
        interface = stage.guest.list_directory(f"/sys/bus/pci/devices/{bdf}/net")[0]
        stage.guest.run(f"ip link set {interface} up && ip addr add {OURS}/24 dev {interface}")
        yield bdf


def mac_of(guest: Guest, bdf: Bdf) -> str:
    """Return the address of the network interface that the function is."""
    return guest.run(f"cat /sys/bus/pci/devices/{bdf}/net/*/address").stdout.strip()


def check_traffic(guest: Guest, bdf: Bdf, wire: Wire) -> None:
    """The peer counts every echo that the guest asks for, and the guest gets every answer."""
    mac = mac_of(guest, bdf)
    before = wire.echoes_asked_by(mac)

    said = guest.run(f"ping -c {PINGS} -i 0.2 -W 2 {ADDRESS}", check=False).stdout

    counted = wire.echoes_asked_by(mac) - before
    assert f"{PINGS} packets received" in said, said
    assert counted == PINGS, f"the peer counted {counted} of {PINGS} from {mac}"


@pytest.mark.rule("SRV-32")
def test_guest_and_peer_talk(stage: SriovStage, given: Bdf, wire: Wire) -> None:
    """Frames of a virtual function in a guest arrive at the peer, and the peer's at the guest."""
    check_traffic(stage.guest, given, wire)


@pytest.mark.negative_control("SRV-32")
def test_a_cut_wire_is_noticed(stage: SriovStage, given: Bdf, wire: Wire) -> None:
    """With the wire pulled out of the lab's card nothing arrives."""
    qmp = stage.host.machine.qmp
    qmp.execute("set_link", {"name": "igb", "up": False})
    try:
        with must_fail():
            check_traffic(stage.guest, given, wire)
    finally:
        qmp.execute("set_link", {"name": "igb", "up": True})


@pytest.mark.rule("SRV-33")
def test_reset_of_a_sibling_is_not_felt(
    stage: SriovStage, given: Bdf, family: Family, wire: Wire
) -> None:
    """A virtual function works while another one of the same device is reset."""
    check_traffic(stage.guest, given, wire)
    stage.host.reset(family.virtual[1].bdf)

    check_traffic(stage.guest, given, wire)


@pytest.mark.negative_control("SRV-33")
def test_reset_of_itself_is_noticed(
    stage: SriovStage, given: Bdf, family: Family, wire: Wire
) -> None:
    """Behind the back of its guest it must not be reset: it then works no more."""
    check_traffic(stage.guest, given, wire)
    stage.host.reset(family.virtual[0].bdf)

    with must_fail():
        check_traffic(stage.guest, given, wire)


def command(system: System, bdf: Bdf) -> int:
    """Return the command register as the system reads it now."""
    return int(system.probe("config", "read", str(bdf), 4, "--width", "2")["last"], 16)


def check_seen_enabled(stage: SriovStage, on_host: Bdf, in_guest: Bdf) -> None:
    """The guest reads Memory Space Enable as set, whatever the function itself says."""
    before = command(stage.host, on_host)
    cleared = before & ~MEMORY_SPACE
    stage.host.probe("config", "write", str(on_host), 4, "--value", cleared, "--width", "2")
    try:
        assert not command(stage.host, on_host) & MEMORY_SPACE, "it could not be cleared"
        assert command(stage.guest, in_guest) & MEMORY_SPACE, "the guest sees it cleared"
    finally:
        stage.host.probe("config", "write", str(on_host), 4, "--value", before, "--width", "2")


@pytest.mark.rule("SRV-10")
def test_memory_space_enable_is_virtual(stage: SriovStage, given: Bdf, family: Family) -> None:
    """The guest sees Mem+ of a virtual function whose own bit is clear, as hardware has it."""
    check_seen_enabled(stage, family.virtual[0].bdf, given)


@pytest.mark.negative_control("SRV-10")
def test_the_bit_of_another_function_is_noticed(stage: SriovStage) -> None:
    """Of a function that is nobody's virtual one the guest sees the bit that there is."""
    edu = next(f for f in stage.host.functions() if str(f.id) == "1234:11e8")
    stage.port, port = EDU_PORT, stage.port
    try:
        with stage.given(edu, "config", name="edu") as bdf:
            stage.guest.run(f"echo 1 > /sys/bus/pci/devices/{bdf}/enable")
            with must_fail():
                check_seen_enabled(stage, edu.bdf, bdf)
    finally:
        stage.port = port


# -- when it must go ------------------------------------------------------------------------------


ASKED = "Relaying device request to user"


def check_asked_and_gone(stage: SriovStage, family: Sriov, mark: int) -> None:
    """QEMU was asked to let go of the function, and did."""
    assert ASKED in stage.host.kernel_log_since(mark)
    assert not any(one.qdev_id == "vf" for one in stage.machine.functions())
    assert family.virtual() == ()


@pytest.fixture
def fresh(stage: SriovStage, family: Family, given: Bdf) -> Iterator[int]:
    """The function is in the guest; afterwards there are virtual functions again.

    The value is a mark in the host's log.
    """
    yield stage.host.kernel_log_mark()
    stage.host.run(
        f"for n in /sys/bus/pci/devices/{stage.family.bdf}/net/*; do"
        " ip link set ${n##*/} up; done"
    )
    if stage.family.read("numvfs") == "0":
        assert not (said := stage.family.write("numvfs", len(family.virtual))), said


@pytest.mark.rule("SRV-12", "LIF-25")
def test_guest_is_asked_when_its_function_goes(stage: SriovStage, fresh: int) -> None:
    """Where virtual functions are to go, who has one is asked, lets go, and then they go."""
    said = stage.family.write("numvfs", 0)

    assert not said, said
    check_asked_and_gone(stage, stage.family, fresh)


@pytest.mark.negative_control("SRV-12", "LIF-25")
def test_a_function_that_stays_is_noticed(stage: SriovStage, fresh: int) -> None:
    """A number that changes nothing asks nobody."""
    stage.family.write("numvfs", int(stage.family.read("numvfs")))

    with must_fail():
        check_asked_and_gone(stage, stage.family, fresh)


@pytest.mark.rule("SRV-12")
def test_guest_is_asked_when_the_driver_goes(stage: SriovStage, fresh: int) -> None:
    """igb takes its virtual functions with it: who has one is asked first."""
    bdf = stage.family.bdf
    stage.host.write_text("/sys/bus/pci/drivers/igb/unbind", str(bdf))
    try:
        check_asked_and_gone(stage, stage.family, fresh)
    finally:
        stage.host.write_text("/sys/bus/pci/drivers/igb/bind", str(bdf))

"""A device that can migrate: Linux's sample mtty, a serial port that only software makes."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager

import pytest

from harness.errors import QmpFailed
from harness.host.host import Host
from harness.lab.bare import Bare
from harness.machine.command import Device
from harness.machine.machine import Machine
from harness.model.pci import Bar, BarKind
from harness.testing import check_said, must_fail, skip
from harness.wait import wait_until
from suites.lifecycle.conftest import StartBare

pytestmark = pytest.mark.full

SLOT = 0x10
MDEVS = "/sys/bus/mdev/devices"
TYPES = "/sys/class/mdev_bus/mtty/mdev_supported_types"
ONE_PORT = "mtty-1"
PORTS = (Bar(0, BarKind.IO, 8),)
SCRATCH = 7
"""Register of a serial port that keeps what is written to it."""


@contextmanager
def mediated(host: Host) -> Iterator[str]:
    """Make such a device while inside; return its name."""
    name = str(uuid.uuid4())
    host.write_text(f"{TYPES}/{ONE_PORT}/create", name)
    try:
        yield name
    finally:
        host.write_text(f"{MDEVS}/{name}/remove", "1")


@pytest.fixture
def make(host: Host) -> Iterator[Callable[[], str]]:
    """Make devices; they go when the machines have gone."""
    if not host.succeeds("[ -e /sys/class/mdev_bus/mtty ] || modprobe mtty"):
        skip(
            "the host's kernel has no sample mtty (CONFIG_SAMPLE_VFIO_MDEV_MTTY)",
            enabled_by="--kernel built:7.3",
        )
    if not host.qemu.version.has(9, 2):
        skip("this QEMU has not all of these options", enabled_by="QEMU 9.2 or later")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(mediated(host))


Start = Callable[..., Bare]


@pytest.fixture
def start(make: Callable[[], str], bare: StartBare) -> Start:
    """Start a machine with one of them, or several; the options are those of each."""

    def started(
        name: str = "mtty",
        *,
        count: int = 1,
        iommu: Device | None = None,
        words: Sequence[str] = (),
        **options: str | bool,
    ) -> Bare:
        devices = (
            Device("vfio-pci", f"mtty{n}", "pcie.0", f"{SLOT + n:#x}",
                   {"sysfsdev": f"{MDEVS}/{make()}"}).having(**options)
            for n in range(count)
        )  # fmt: skip
        return bare(*devices, name=name, iommu=iommu, words=words)

    return started


def reasons(machine: Bare) -> str:
    """Return why the machine cannot migrate, a line each."""
    found = machine.machine.qmp.execute("query-migrate").get("blocked-reasons", [])
    return "\n".join(found)


def check_free_to_go(machine: Bare) -> None:
    """Nothing keeps the machine from migrating."""
    assert not reasons(machine), reasons(machine)


def went(machine: Machine, uri: str) -> str:
    """Migrate; return what was said against it, '' if it went."""
    try:
        machine.qmp.execute("migrate", {"uri": uri})
    except QmpFailed as refused:
        if not refused.error_class:  # no answer is not a no
            raise
        return refused.description
    return arrived(machine)


def arrived(machine: Machine) -> str:
    """Wait until a migration is over; return what was said against it."""

    def over() -> dict[str, str] | None:
        found: dict[str, str] = machine.qmp.execute("query-migrate")
        return found if found.get("status") in ("completed", "failed", "cancelled") else None

    found = wait_until("the migration is over", over, timeout=60, guards=(machine.check_alive,))
    return "" if found["status"] == "completed" else found.get("error-desc", found["status"])


# -- there and back ---------------------------------------------------------------------------


def check_scratch(machine: Bare, port: int, value: int) -> None:
    """The device has that in its scratch register."""
    found = machine.qtest.in_(port + SCRATCH, 1)
    assert found == value, f"{found:#04x}"


PEERS = "Multiple VFIO devices migration is supported only if all of them support P2P migration"
PEER_STATES = frozenset({"running-p2p", "pre-copy-p2p"})


def run_and_stop(machine: Machine) -> dict[str, AbstractSet[str]]:
    """Return the states that devices were reported to be in meanwhile, by their ids."""
    mark = machine.qmp.mark()
    for word in ("cont", "stop"):
        machine.qmp.execute(word)
    told = machine.qmp.events("VFIO_MIGRATION", since=mark)
    return {
        name: {data["device-state"] for data in told if data["device-id"] == name}
        for name in {data["device-id"] for data in told}
    }


def check_peers(said: str, states: Mapping[str, AbstractSet[str]]) -> None:
    """Several devices are kept if one of them has no peer-to-peer state, and only then."""
    strangers = [name for name, seen in states.items() if not seen & PEER_STATES]
    kept = len(states) > 1 and bool(strangers)
    assert (PEERS in said) == kept, f"without these states {strangers}; blocked: {said or 'no'}"


@pytest.mark.rule("MIG-04")
@pytest.mark.negative_control("MIG-04")
def test_devices_that_know_peers_go_together(start: Start) -> None:
    """Several devices that all have the peer-to-peer states do not block one another."""
    machine = start(count=2, enable_migration="auto", migration_events=True)
    check_free_to_go(machine)

    states = run_and_stop(machine.machine)

    assert states.keys() == {"mtty0", "mtty1"}, states
    check_peers(reasons(machine), states)
    # What a device without them would be; an mtty always has them. It alters what was recorded:
    # QEMU refuses nothing here, and other words for its refusal would not be noticed.
    with must_fail():
        check_peers(reasons(machine), {**states, "mtty1": states["mtty1"] - PEER_STATES})


@pytest.mark.rule("MIG-08")
@pytest.mark.negative_control("MIG-08")
def test_a_device_goes_to_a_file_and_comes_back(start: Start, host: Host) -> None:
    """Its registers are those of the device that went; each step is told by an event."""
    file = "/run/trapline-mtty.migration"
    source = start("source", enable_migration="on", migration_events=True)
    port = source.program(SLOT, PORTS)[0]
    source.qtest.out(port + SCRATCH, 0x5A, 1)
    mark = source.machine.qmp.mark()

    assert not went(source.machine, f"file:{file}")

    check_steps(source.machine, mark)
    source.machine.kill()
    target = start("target", enable_migration="on", words=("-incoming", "defer"))
    try:
        mark = target.machine.qmp.mark()
        target.machine.qmp.execute("migrate-incoming", {"uri": f"file:{file}"})
        assert not arrived(target.machine)
        with must_fail():  # the driver keeps what came until the device runs (mtty_load_state)
            check_scratch(target, port, 0x5A)
        for word in ("cont", "stop"):
            target.machine.qmp.execute(word)
        check_scratch(target, target.program(SLOT, PORTS)[0], 0x5A)  # firmware may have begun
        with must_fail():
            check_steps(target.machine, mark)
    finally:
        host.run(["rm", "-f", file])


def check_steps(machine: Machine, mark: int) -> None:
    """The states on the way out were reported, by the device's id."""
    for state in ("pre-copy", "stop-copy", "stop"):
        assert told(machine, mark, state), f"VFIO_MIGRATION never said {state}"


def told(machine: Machine, mark: int, state: str) -> bool:
    """Say whether the device was reported to be in *state*."""
    wanted = {"device-id": "mtty0", "device-state": state}
    found = machine.qmp.events("VFIO_MIGRATION", since=mark)
    return any(wanted.items() <= data.items() for data in found)


# -- what keeps it ----------------------------------------------------------------------------

VIOMMU = Device("intel-iommu", "iommu", options={"caching-mode": True, "intremap": True})
WITH_VIOMMU = "Migration is currently not supported with vIOMMU enabled"
UNTRACKED = "VFIO device doesn't support device and IOMMU dirty tracking"


UNTRACKING = {"x_device_dirty_page_tracking": "off"}


@pytest.mark.rule("MIG-03")
@pytest.mark.negative_control("MIG-03")
def test_a_viommu_keeps_a_device_that_tracks(start: Start) -> None:
    """A vIOMMU is a reason not to migrate for a device that itself tracks what it writes."""
    check_said(reasons(start("viommu", iommu=VIOMMU)), WITH_VIOMMU)
    with must_fail():
        check_said(reasons(start("none")), WITH_VIOMMU)


@pytest.mark.rule("MIG-03")
@pytest.mark.negative_control("MIG-03")
def test_a_viommu_lets_go_what_does_not_track(start: Start, host: Host) -> None:
    """Since QEMU 11.0 it is no reason for a device that does not."""
    if not host.qemu.version.has(11, 0):
        skip("a vIOMMU keeps every device here", enabled_by="QEMU 11.0 or later")

    check_free_to_go(start(iommu=VIOMMU, enable_migration="on", **UNTRACKING))
    with must_fail():
        check_free_to_go(start("tracking", iommu=VIOMMU))


@pytest.mark.rule("MIG-05")
@pytest.mark.negative_control("MIG-05")
def test_what_is_not_tracked_does_not_go_by_itself(start: Start) -> None:
    """Without dirty tracking auto is blocked, and on is warned of."""
    auto = start("auto", enable_migration="auto", **UNTRACKING)
    check_said(reasons(auto), UNTRACKED)

    forced = start("on", enable_migration="on", **UNTRACKING)
    check_said(forced.machine.stderr(), UNTRACKED)
    check_free_to_go(forced)

    tracked = start("tracked", enable_migration="auto")
    with must_fail():
        check_said(reasons(tracked) + tracked.machine.stderr(), UNTRACKED)
    with must_fail():
        check_free_to_go(auto)


POSTCOPY = "VFIO migration is not supported with postcopy migration"
SNAPSHOT = "VFIO migration is not supported with background snapshot"


@pytest.mark.parametrize(
    ("capability", "words"), [("postcopy-ram", POSTCOPY), ("background-snapshot", SNAPSHOT)]
)
@pytest.mark.rule("MIG-06")
@pytest.mark.negative_control("MIG-06")
def test_it_does_not_go_in_every_way(start: Start, capability: str, words: str) -> None:
    """Neither after-copying nor a snapshot in the background can take it along."""
    machine = start(enable_migration="on").machine
    switch = {"capability": capability, "state": True}
    machine.qmp.execute("migrate-set-capabilities", {"capabilities": [switch]})
    check_said(went(machine, "exec:cat > /dev/null"), words)

    switch["state"] = False
    machine.qmp.execute("migrate-set-capabilities", {"capabilities": [switch]})
    with must_fail():
        check_said(went(machine, "exec:cat > /dev/null"), words)

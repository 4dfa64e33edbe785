"""QEMU is killed in the middle of something: the function is as good as new for the next one."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from harness.guest.block import BlockDevice
from harness.host.host import Host
from harness.host.virtual_spec import assigned_device
from harness.lab.hosts import DISK_SEED
from harness.lab.nested import Nested
from harness.lab.resident import Resident
from harness.machine.machine import Machine
from harness.model.pci import Bdf
from harness.suite_fixtures import Attempt, Free, Launch
from harness.testing import must_fail
from harness.wait import wait_until
from suites.lifecycle.conftest import spec_with

pytestmark = pytest.mark.full

BLOCK = 64 * 1024


def check_usable(host: Host, bdf: Bdf, attempt: Attempt) -> None:
    """A new machine gets the nvme; then its own driver does, and reads what the lab put there."""
    device = assigned_device("nvme", str(bdf))
    said = attempt(host, spec_with(host, device, name="next"))
    assert not said, said
    host.load_driver("nvme")
    with host.bound(bdf, "nvme"):
        disk = wait_until(
            "the host sees the disk",
            lambda: BlockDevice(host, "/dev/nvme0n1") if host.exists("/dev/nvme0n1") else None,
            timeout=30,
        )
        assert disk.holds(DISK_SEED, offset=0, length=BLOCK)


def unheard(machine: Machine, command: str, **arguments: str) -> None:
    """Give a QMP command over the second monitor, and wait for no answer."""
    stream = machine.place.connect(machine.sockets.qmp_debug, timeout=10)
    words = [{"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}]
    with stream:
        stream.sendall("".join(f"{json.dumps(word)}\n" for word in words).encode())
        # Until QEMU answers to the first it has not read the second.
        stream.settimeout(10)
        heard = b""
        while b'"return"' not in heard:
            heard += stream.recv(4096)


def plugging(machine: Machine, bdf: Bdf) -> None:
    """Begin to add the function to the machine."""
    unheard(machine, "device_add", driver="vfio-pci", id="nvme", bus="rp0", host=str(bdf))


def resetting(machine: Machine, bdf: Bdf) -> None:
    """Add the function to the machine, and begin to reset it."""
    machine.add_device(assigned_device("nvme", str(bdf)))
    unheard(machine, "system_reset")


def unplugging(machine: Machine, bdf: Bdf) -> None:
    """Add the function to the machine, and begin to take it out again."""
    machine.add_device(assigned_device("nvme", str(bdf)))
    unheard(machine, "device_del", id="nvme")


@pytest.mark.parametrize("begin", [plugging, resetting, unplugging])
@pytest.mark.rule("LIF-31")
def test_killed_in_the_middle(
    host: Host,
    free: Free,
    launch: Launch,
    attempt: Attempt,
    begin: Callable[[Machine, Bdf], None],
) -> None:
    """Killed while it adds, resets or removes a function, QEMU leaves it usable."""
    bdf = free("nvme").bdf
    machine = launch(replace(spec_with(host, name="victim"), no_reboot=False))

    begin(machine, bdf)
    assert machine.kill() == -9

    check_usable(host, bdf, attempt)


@pytest.mark.negative_control("LIF-31")
def test_a_function_that_is_held_is_noticed(
    host: Host, free: Free, launch: Launch, attempt: Attempt
) -> None:
    """While the machine lives the function is not usable."""
    bdf = free("nvme").bdf
    holder = launch(spec_with(host, assigned_device("nvme", str(bdf)), name="holder"))

    with must_fail():
        check_usable(host, bdf, attempt)
    holder.check()


@pytest.fixture
def victim(resident: Resident) -> Iterator[Nested]:
    """A guest with an nvme, to be killed."""
    guest = resident.guest("victim", devices=["nvme"])
    yield guest
    resident.end(guest)


def requests(guest: Nested) -> int:
    """Return how many reads the disk of the guest has done."""
    assert guest.guest is not None
    return int(guest.guest.read_text("/sys/block/nvme0n1/stat").split()[0])


@pytest.mark.rule("LIF-31")
def test_killed_while_the_device_works(victim: Nested, attempt: Attempt) -> None:
    """Killed while the guest reads from its disk, QEMU leaves the disk usable."""
    assert victim.guest is not None
    reads = "while echo 3 > /proc/sys/vm/drop_caches; do cat /dev/nvme0n1 > /dev/null; done"
    victim.guest.run(f"({reads}) > /dev/null 2>&1 &")
    before = requests(victim)
    wait_until("the disk works", lambda: requests(victim) > before + 20, timeout=30)

    victim.machine.kill()

    check_usable(victim.host, victim.assigned["nvme"].function.bdf, attempt)

"""Asking a device to go: by QMP, by the host; guests that help, and guests that never answer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from harness.errors import QmpFailed
from harness.host.host import Host
from harness.host.virtual_spec import assigned_device
from harness.lab.bare import Bare, Registers
from harness.lab.resident import Resident
from harness.machine.machine import Machine
from harness.model.pci import Bdf
from harness.suite_fixtures import Free
from harness.testing import check_said, must_fail
from harness.wait import wait_until
from suites.lifecycle.conftest import StartBare

NATIVE = ("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off")
"""Root ports do hot-plug themselves; without it ACPI does it for them (q35 since 6.1)."""
PORT = 0x08
"""Slot of the root port of the nvme."""
EXPRESS, SLOT_CONTROL = 0x10, 0x18
POWER_INDICATOR, ON, BLINKING = 0x300, 0x100, 0x200
"""Bits 8 and 9 of slot control (PCIe 6.0, 7.5.3.10)."""
IN_PROCESS = "Device nvme is already in the process of unplug"
BUSY = "Hot-unplug failed: guest is busy (power indicator blinking)"
GONE = "Device 'nvme' not found"


def asked(machine: Machine, device: str = "nvme") -> str:
    """Ask the device to go; return what QEMU said against it, '' if it asked the guest."""
    try:
        machine.qmp.execute("device_del", {"id": device})
    except QmpFailed as refused:
        if not refused.error_class:  # no answer is not a no
            raise
        return refused.description
    return ""


@pytest.fixture
def silent(free: Free, bare: StartBare) -> Bare:
    """A machine with an nvme behind a root port, and nobody who ever answers."""
    return bare(assigned_device("nvme", str(free("nvme").bdf)), words=NATIVE)


@pytest.fixture
def unpowered(free: Free, bare: StartBare) -> Bare:
    """The same, with the nvme in a port that nobody has switched on."""
    machine = bare(words=NATIVE)
    machine.machine.add_device(assigned_device("nvme", str(free("nvme").bdf)))
    return machine


def check_there(machine: Machine) -> None:
    """QEMU has the device."""
    found = machine.qmp.execute("qom-list", {"path": "/machine/peripheral"})
    assert "nvme" in [entry["name"] for entry in found], found


def check_waits(machine: Machine) -> None:
    """The device is still there, and asked a second time QEMU says that it is on its way."""
    before = machine.qmp.mark()
    assert not asked(machine)
    check_said(asked(machine), IN_PROCESS)
    check_there(machine)
    assert machine.qmp.mark() == before, "something happened"


@pytest.mark.rule("LIF-21")
def test_a_guest_that_never_answers_keeps_its_device(silent: Bare) -> None:
    """A device that the guest does not let go of stays; to ask again says that it was asked."""
    check_waits(silent.machine)


@pytest.mark.negative_control("LIF-21")
def test_a_port_that_is_off_needs_no_answer(unpowered: Bare) -> None:
    """Behind a port that is not switched on a device goes at once."""
    with must_fail():
        check_waits(unpowered.machine)


def running(machine: Machine) -> None:
    """Let its time run; there is firmware only."""
    machine.qmp.execute("cont")


@pytest.mark.full
@pytest.mark.rule("LIF-21")
def test_after_five_seconds_it_is_a_new_request(silent: Bare) -> None:
    """After 5 seconds of the machine's time a root port takes it for a new request."""
    running(silent.machine)
    check_waits(silent.machine)

    wait_until(
        "a second request is taken", lambda: not asked(silent.machine), timeout=30, interval=0.5
    )

    check_said(asked(silent.machine), IN_PROCESS)


def check_refused_meanwhile(said: Sequence[str]) -> None:
    """The first request was taken; until the last, which found nothing, all were refused."""
    assert said[0] == ""
    assert set(said[1:-1]) <= {IN_PROCESS, BUSY} and IN_PROCESS in said, set(said)


@pytest.mark.full
@pytest.mark.rule("LIF-21")
@pytest.mark.negative_control("LIF-21")
def test_through_acpi_every_request_is_a_new_one(free: Free, bare: StartBare) -> None:
    """Where ACPI does hot-plug for the root ports a request blocks none for longer than 1 ms."""
    machine = bare(assigned_device("nvme", str(free("nvme").bdf))).machine
    running(machine)

    said = [asked(machine) for _ in range(3)]

    assert said == ["", "", ""]
    with must_fail():
        check_said(said[1], IN_PROCESS)
    with must_fail():
        check_refused_meanwhile([*said, GONE])
    check_there(machine)


def indicate(machine: Bare, how: int) -> Registers:
    """Have the power indicator of the nvme's port *how*, as a guest does."""
    port = machine.registers(PORT)
    at = port.capability(EXPRESS) + SLOT_CONTROL
    port.change(at, clear=POWER_INDICATOR, set=how)
    assert port.read(at) & POWER_INDICATOR == how
    return port


@pytest.mark.rule("LIF-22")
@pytest.mark.negative_control("LIF-22")
def test_a_blinking_power_indicator_refuses(silent: Bare) -> None:
    """While the power indicator blinks the guest is busy, and nothing is asked of it."""
    indicate(silent, BLINKING)
    said = asked(silent.machine)
    check_said(said, BUSY)

    indicate(silent, ON)
    said = asked(silent.machine)
    with must_fail():
        check_said(said, BUSY)


# -- a guest that helps -----------------------------------------------------------------------


@pytest.fixture
def native(resident: Resident) -> Iterator[Machine]:
    """The machine of a guest with an nvme, whose root ports do hot-plug themselves."""
    guest = resident.guest("native-hotplug", devices=["nvme"], extra=NATIVE)
    yield guest.machine
    resident.end(guest)


@pytest.mark.full
@pytest.mark.rule("LIF-20", "LIF-21", "LIF-22")
def test_a_guest_lets_go_after_its_five_seconds(native: Machine) -> None:
    """A guest whose button was pressed blinks for 5 seconds, in which nobody can ask again."""
    before = native.qmp.mark()
    answers = [asked(native)]

    def gone() -> bool:
        answers.append(asked(native))
        return answers[-1] == GONE

    wait_until("the guest lets go", gone, timeout=60, guards=(native.check,), interval=0.1)

    check_refused_meanwhile(answers)
    native.qmp.wait_event("DEVICE_DELETED", timeout=5, since=before)


# -- the host wants it back -------------------------------------------------------------------

DRIVER = "/sys/bus/pci/drivers/vfio-pci"
STATUS = "/run/trapline-unbind"
ASKS = "Relaying device request to user (#0)"
NOBODY_ASKED = "No device request channel registered, blocked until released by user"
BLOCKED = "blocked until device is released"


@dataclass(frozen=True, slots=True)
class Unbinding:
    """A host that takes a function from vfio-pci, as long as that takes."""

    host: Host
    pid: int
    mark: int

    @property
    def log(self) -> str:
        """What the kernel logged meanwhile."""
        return self.host.kernel_log_since(self.mark)

    @property
    def done(self) -> bool:
        """Say whether vfio-pci has let go."""
        return self.host.exists(STATUS)

    def wait(self) -> None:
        """Wait until it has."""
        wait_until("vfio-pci lets go", lambda: self.done, timeout=30)

    def wait_for(self, words: str) -> None:
        """Wait until the kernel says so."""
        wait_until(words, lambda: words in self.log, timeout=30, last_seen=lambda: self.log)

    def interrupt(self) -> None:
        """Send a signal to who unbinds."""
        self.host.run(f"kill -TERM {self.pid}")


@contextmanager
def unbinding(host: Host, bdf: Bdf, machine: Machine) -> Iterator[Unbinding]:
    """Take the function from vfio-pci in the background; vfio-pci has it again afterwards.

    The machine that has the function goes if it still has it then.
    """
    mark = host.kernel_log_mark()
    words = f"trap : TERM; echo {bdf} > {DRIVER}/unbind; echo done > {STATUS}"
    pid = host.run(f"rm -f {STATUS}; ({words}) > /dev/null 2>&1 & echo $!").stdout
    found = Unbinding(host, int(pid), mark)
    try:
        yield found
    finally:
        if not found.done:
            machine.kill()
        found.wait()
        host.run(f"rm -f {STATUS}; [ -e {DRIVER}/{bdf} ] || echo {bdf} > {DRIVER}/bind")


def held(bare: StartBare, free: Free, **options: bool) -> tuple[Bare, Bdf]:
    """Return a machine with an nvme in a port that is off, so that it goes without a guest."""
    bdf = free("nvme").bdf
    machine = bare(words=NATIVE)
    machine.machine.add_device(assigned_device("nvme", str(bdf), options=options))
    return machine, bdf


def check_asked(machine: Machine, unbinding: Unbinding) -> None:
    """The kernel asked QEMU, which gave the device away, so the host has it."""
    machine.qmp.wait_event("DEVICE_DELETED", timeout=5)
    unbinding.wait()
    check_said(unbinding.log, ASKS)


@pytest.mark.rule("LIF-25")
def test_the_host_gets_back_what_it_wants(bare: StartBare, free: Free, host: Host) -> None:
    """Unbound from vfio-pci on the host, a function is unplugged by QEMU, which goes on."""
    machine, bdf = held(bare, free)

    with unbinding(host, bdf, machine.machine) as attempt:
        check_asked(machine.machine, attempt)
        assert not host.exists(f"{DRIVER}/{bdf}")

    machine.machine.check()


def check_blocks(unbinding: Unbinding) -> None:
    """Who unbinds waits, as it hears when it is interrupted."""
    unbinding.interrupt()
    unbinding.wait_for(BLOCKED)
    assert not unbinding.done


@pytest.mark.rule("LIF-25")
@pytest.mark.negative_control("LIF-25")
def test_a_machine_that_is_not_asked_keeps_it(bare: StartBare, free: Free, host: Host) -> None:
    """With x-req=off QEMU hears of nothing, and the host waits until QEMU ends."""
    machine, bdf = held(bare, free, **{"x-req": False})

    with unbinding(host, bdf, machine.machine) as attempt:
        attempt.wait_for(NOBODY_ASKED)
        check_blocks(attempt)
        with must_fail():
            check_said(attempt.log, ASKS)
        machine.machine.kill()
        attempt.wait()


@pytest.mark.full
@pytest.mark.rule("LIF-25")
def test_a_busy_guest_blocks_the_host(silent: Bare, host: Host) -> None:
    """With a guest that is busy it waits too; QEMU is asked, and asked again after 10 seconds."""
    function = {"path": "/machine/peripheral/nvme", "property": "host"}
    bdf = Bdf.parse(silent.machine.qmp.execute("qom-get", function))
    indicate(silent, BLINKING)

    with unbinding(host, bdf, silent.machine) as attempt:
        attempt.wait_for(ASKS)
        check_blocks(attempt)
        wait_until(
            "QEMU was asked twice",
            lambda: silent.machine.stderr().count(BUSY) > 1,
            timeout=60,
            last_seen=silent.machine.stderr,
        )
        silent.machine.kill()
        attempt.wait()

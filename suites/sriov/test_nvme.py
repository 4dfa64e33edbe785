"""Virtual functions of an nvme: what they need before they work, and that they then do."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.guest.nvme import Secondary
from harness.guest.sriov import Sriov
from harness.guest.system import System
from harness.host.virtual_spec import nested_spec
from harness.lab.sriov_stage import SriovStage
from harness.machine.command import Device
from harness.model.pattern import pattern
from harness.model.pci import PciFunction
from harness.testing import must_fail
from harness.wait import wait_until
from suites.sriov.conftest import ARI, COUNT, SRIOV, Family, check_refused

pytestmark = pytest.mark.full

DRIVER = "/sys/bus/pci/drivers/nvme"


@pytest.fixture(scope="module")
def admin_family(nvme_stage: SriovStage) -> Family:
    """The nvme with two virtual functions that nobody drives, their controllers offline."""
    nvme_stage.admin.release()
    nvme_stage.family.write("drivers_autoprobe", 0)
    assert not (said := nvme_stage.family.write("numvfs", COUNT)), said
    physical = nvme_stage.host.function(nvme_stage.family.bdf)
    return Family(physical, nvme_stage.family.virtual())


def check_layout(family: Family, stride: int) -> None:
    """Capabilities and first offset are those of QEMU's nvme."""
    found = (family.capability(ARI), family.capability(SRIOV), family.word(0x14))
    assert (found, family.word(0x16)) == ((0x100, 0x120, 1), stride)
    expected = [family.physical.bdf.source_id + 1 + n * stride for n in range(COUNT)]
    assert [f.bdf.source_id for f in family.virtual] == expected


@pytest.mark.rule("SRV-08", "SRV-28")
@pytest.mark.negative_control("SRV-28")
def test_layout(admin_family: Family) -> None:
    """ARI lies at 0x100, SR-IOV at 0x120; virtual functions follow one by one, not in twos."""
    check_layout(admin_family, 1)
    with must_fail():
        check_layout(admin_family, 2)


def check_offline(secondaries: tuple[Secondary, ...], count: int) -> None:
    """None of the first *count* secondary controllers works."""
    assert len(secondaries) >= count, secondaries
    assert not any(one.online for one in secondaries[:count]), secondaries


@pytest.mark.rule("SRV-28")
def test_controllers_are_offline_at_first(nvme_stage: SriovStage, admin_family: Family) -> None:
    """Until it has queues and a vector a secondary controller is offline."""
    check_offline(nvme_stage.admin.secondaries()[1:], 1)


@pytest.fixture
def working(nvme_stage: SriovStage, admin_family: Family) -> PciFunction:
    """The first virtual function, its controller online."""
    if not nvme_stage.admin.secondaries()[0].online:
        nvme_stage.admin.bring_online(1)
    return admin_family.virtual[0]


@pytest.mark.negative_control("SRV-28")
def test_a_controller_that_is_online_is_noticed(
    nvme_stage: SriovStage, working: PciFunction
) -> None:
    """With two queues and a vector it is not."""
    with must_fail():
        check_offline(nvme_stage.admin.secondaries(), 1)


LENGTH = 1 << 20
SEED = 0x5E51


def check_written(host: System, disk: Path, seed: int) -> None:
    """Host and lab read the pattern of *seed*: by the physical function, and from the file."""
    (node,) = host.run("ls /dev/nvme*n1").stdout.split()
    said = host.probe("block", "read", node, 0, LENGTH, "--pattern", seed, check=False)
    assert said.get("match") == "yes", f"{node} on the host: {said}"
    assert disk.read_bytes()[:LENGTH] == pattern(seed, 0, LENGTH), "the file has something else"


@pytest.mark.rule("SRV-32")
@pytest.mark.negative_control("SRV-32")
def test_guest_writes_and_host_reads(nvme_stage: SriovStage, working: PciFunction) -> None:
    """What a guest writes through a virtual function the host reads, and nothing else."""
    assert nvme_stage.disk is not None
    with nvme_stage.given(working, "nvme/nvme*/nvme*n1"):
        (node,) = nvme_stage.guest.run("ls /dev/nvme*n1").stdout.split()
        nvme_stage.guest.probe("block", "write", node, 0, LENGTH, "--pattern", SEED)

    check_written(nvme_stage.host, nvme_stage.disk, SEED)
    with must_fail():
        check_written(nvme_stage.host, nvme_stage.disk, SEED + 1)


NO_ROOM = "not enough MMIO resources for SR-IOV"
NO_MEMORY = "Cannot allocate memory"


@pytest.fixture
def without_room(nvme_stage: SriovStage, admin_family: Family) -> Sriov:
    """Another nvme, whose port has a window too small for virtual functions."""
    wide = next(f for f in nvme_stage.host.find(admin_family.physical.id)
                if f.bdf.bus != admin_family.physical.bdf.bus)  # fmt: skip
    return Sriov(nvme_stage.host, wide.bdf)


@pytest.mark.rule("SRV-14")
def test_virtual_functions_need_room(without_room: Sriov) -> None:
    """Where the window of the port is too small for their BARs there are none, and it is said."""
    check_refused(without_room, 1, NO_MEMORY, NO_ROOM)


@pytest.mark.negative_control("SRV-14")
def test_room_is_noticed(nvme_stage: SriovStage, admin_family: Family) -> None:
    """Where they fit they are there."""
    with must_fail():
        check_refused(nvme_stage.family, COUNT, NO_MEMORY, NO_ROOM)


LEFT = "driver left SR-IOV enabled after remove"


def unbound(function: Sriov) -> str:
    """Take the driver from the physical function and give it back; return what was logged."""
    mark = function.system.kernel_log_mark()
    function.system.write_text(f"{DRIVER}/unbind", str(function.bdf))
    try:
        return function.system.kernel_log_since(mark)
    finally:
        function.system.write_text(f"{DRIVER}/bind", str(function.bdf))


def check_left(log: str, function: Sriov) -> None:
    """The kernel warns, and the virtual functions are still there."""
    assert LEFT in log, log or "nothing was logged"
    assert len(function.virtual()) == COUNT


@pytest.mark.rule("SRV-12")
def test_nvme_leaves_them_behind(nvme_stage: SriovStage, admin_family: Family) -> None:
    """The driver of an nvme goes without its virtual functions, and the kernel warns."""
    check_left(unbound(nvme_stage.family), nvme_stage.family)


@pytest.mark.negative_control("SRV-12")
def test_a_driver_that_leaves_none_is_noticed(nvme_stage: SriovStage, without_room: Sriov) -> None:
    """Where the driver goes from a function that has none, none are left behind."""
    log = unbound(without_room)

    with must_fail():
        check_left(log, without_room)


# -- asked for, and not given back --------------------------------------------------------------

WRITTEN = "/run/trapline-written"
ASKED = "Relaying device request to user"
REFUSED = "Cannot modify SR-IOV while VFs are assigned"


@pytest.fixture
def again(nvme_stage: SriovStage, admin_family: Family) -> Iterator[Family]:
    """The virtual functions; there are as many afterwards."""
    yield admin_family
    nvme_stage.host.run(f"rm -f {WRITTEN}")
    assert not (said := nvme_stage.family.write("numvfs", COUNT)), said


def none_wanted(stage: SriovStage) -> str:
    """Begin to have no virtual functions; return what was logged when all is asked or done."""
    host, mark = stage.host, stage.host.kernel_log_mark()
    path = f"/sys/bus/pci/devices/{stage.family.bdf}/sriov_numvfs"
    host.run(f"(echo 0 > {path}; echo > {WRITTEN}) </dev/null >/dev/null 2>&1 &")

    def asked_or_done() -> bool:
        return ASKED in host.kernel_log_since(mark) or host.exists(WRITTEN)

    wait_until("whoever has a virtual function is asked", asked_or_done, timeout=60)
    return host.kernel_log_since(mark)


def check_waits(stage: SriovStage, log: str) -> None:
    """Nobody is refused; who has the function is asked, and until it lets go nothing is done."""
    assert ASKED in log and REFUSED not in log, log
    assert not stage.host.exists(WRITTEN), "written, though somebody has the function"


@pytest.mark.rule("SRV-12", "SRV-13")
def test_number_waits_for_who_has_one(
    nvme_stage: SriovStage, again: Family, evidence: Path
) -> None:
    """While a machine has a virtual function and does not let go, it stays; then it goes."""
    host, virtual = nvme_stage.host, again.virtual[1].bdf
    taken = Device("vfio-pci", "vf", "rp0", "0", {"host": str(virtual)})
    spec = nested_spec(accel=host.accelerator.option, memory_mib=64, name="holds")
    host.bind(virtual, "vfio-pci")  # not to be put back: it goes
    with host.launch(replace(spec.adding(taken), paused=True), evidence=evidence):
        check_waits(nvme_stage, none_wanted(nvme_stage))

    wait_until("the number is written", lambda: host.exists(WRITTEN), timeout=60)
    assert not host.exists(f"/sys/bus/pci/devices/{virtual}")


@pytest.mark.negative_control("SRV-12", "SRV-13")
def test_a_number_that_does_not_wait_is_noticed(nvme_stage: SriovStage, again: Family) -> None:
    """Where nobody has one nobody is asked."""
    log = none_wanted(nvme_stage)
    wait_until("the number is written", lambda: nvme_stage.host.exists(WRITTEN), timeout=60)

    with must_fail():
        check_waits(nvme_stage, log)

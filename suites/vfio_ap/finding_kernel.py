"""Defects of kernels and tools that this area has found; not collected unless named.

Each test says what should be: where it fails, the defect is there. What was seen on which
version is in docs/findings/ap-*.md.
"""

from __future__ import annotations

import pytest

from harness.ap.ap_host import ApHost
from harness.ap.matrix_device import MatrixDevice
from harness.ap.workbench import Workbench
from harness.machine.command import Device
from harness.machine.machine import Machine
from harness.model.ap.mask import ApMask
from harness.testing import skip
from suites.vfio_ap.conftest import FREED, OpenApHost

LOCK_OF_KVM = {(6, 12): 0x920, (7, 2): 0x910}
"""Offset of ``lock`` in ``struct kvm`` of Debian's kernels: with kvm NULL, an address."""


# -- ap-lock-of-no-guest.md -------------------------------------------------------------------


def test_a_lost_adapter_takes_the_lock_of_nobody(freed: Workbench, ap_host: ApHost) -> None:
    """An adapter that leaves the host while no guest has it touches no ``struct kvm``."""
    address = LOCK_OF_KVM.get((ap_host.kernel.major, ap_host.kernel.minor))
    if address is None:
        skip(
            "nobody wrote down where struct kvm has its lock in this kernel",
            enabled_by="--kernel debian:trixie or debian:sid",
        )
    freed.device().configure(adapters=(5, 6), domains=(4,))

    with ap_host.watch_writes(address) as writes:
        freed.unplug(6)

    places = ", ".join(f"{place:#x}" for place in writes)
    assert not writes, f"{len(writes)} writes to {address:#x}, NULL as a kvm, from {places}"


# -- ap-guest-keeps-what-the-host-lost.md -----------------------------------------------------


@pytest.fixture
def only(freed: Workbench) -> MatrixDevice:
    """A device with one adapter, one domain and one control domain."""
    return freed.device().configure(adapters=(5,), domains=(4,), control=(0x10,))


def test_the_last_adapter_leaves_the_guest_too(freed: Workbench, only: MatrixDevice) -> None:
    """When the host loses the only adapter of a guest, its bit is cleared in the CRYCB."""
    client = freed.client()
    client.open(only)
    client.do("vcpu")
    freed.unplug(5)

    entry = freed.enter_sie(client)
    assert entry.adapters == ApMask(), f"guest_matrix {only.guest_matrix}, but {entry}"


def test_a_lost_control_domain_leaves_the_guest(freed: Workbench, only: MatrixDevice) -> None:
    """When the host loses a control domain, its bit is cleared in the guest's CRYCB."""
    client = freed.client()
    client.open(only)
    client.do("vcpu")
    freed.set_control_domains([one for one in freed.control_domains if one != 0x10])

    entry = freed.enter_sie(client)
    assert 0x10 not in entry.control_domains, str(entry)


def test_another_control_domain_stays(freed: Workbench) -> None:
    """A control domain that the host keeps is not taken when it loses another."""
    device = freed.device().configure(adapters=(5,), domains=(4,), control=(0x10, 0x47))
    client = freed.client()
    client.open(device)
    client.do("vcpu")
    freed.set_control_domains([one for one in freed.control_domains if one != 0x10])

    entry = freed.enter_sie(client)
    assert list(entry.control_domains) == [0x47], str(entry)


# -- read beside it, and not seen (the same page) ---------------------------------------------


def test_an_arriving_control_domain_resets_no_queue(freed: Workbench) -> None:
    """A control domain that arrives is given to the guest; no queue is zeroized for it."""
    device = freed.device().configure(adapters=(5, 6), domains=(4, 0xAB), control=(0x55,))
    client = freed.client()
    client.open(device)
    mark = freed.instruction_mark()
    freed.set_control_domains([*freed.control_domains, 0x55])

    assert freed.zapped_since(mark) == []


# -- ap-use-after-free.md ---------------------------------------------------------------------


def test_a_filtered_queue_forgets_its_device(open_ap_host: OpenApHost) -> None:
    """A queue that was filtered, and whose adapter was unassigned, forgets the device.

    With freed memory poisoned a kernel that does not crashes: the verdict is then an error.
    """
    host = open_ap_host(append="slub_debug=FZPU", name="poisoned")
    bench = Workbench(host)
    bench.settle(apmask=FREED, aqmask=ApMask.full())
    device = bench.device().configure(adapters=(5,), domains=(4, 0x47))
    bench.bus.unbind("05.0047")
    device.unassign_adapter(5)
    device.remove()

    bench.bus.unbind("05.0004")
    host.check()

    assert "Unable to handle kernel pointer" not in host.kernel_log()


# -- ap-unbound-queue-and-masks.md ------------------------------------------------------------


def test_an_unbound_queue_stays_unbound(ap: Workbench) -> None:
    """A change of a mask that does not concern a queue leaves it alone, bound or not."""
    ap.bus.unbind("05.0004", driver="cex4queue")
    ap.bus.write("apmask", "-6")

    assert ap.bus.driver("05.0004") == ""


# -- ap-override-outlives-its-queue.md --------------------------------------------------------


@pytest.mark.usefixtures("needs_driver_override")
def test_an_override_goes_with_its_queue(open_ap_host: OpenApHost) -> None:
    """When a queue with a driver override leaves, masks can be written again."""
    bench = Workbench(open_ap_host(name="overridden"))
    bench.settle(apmask=ApMask.full(), aqmask=ApMask.full())
    bench.override("05.0004", "vfio_ap")
    bench.unplug(5)

    assert bench.attributes.write("/sys/bus/ap/apmask", "-6") == ""


# -- ap-aqic-at-unplug.md ---------------------------------------------------------------------


def test_unplugging_disables_no_interrupt_that_is_off(
    by_file: Workbench, cdev_machine: Machine
) -> None:
    """A device over iommufd whose interrupts were never used is unplugged without AQIC."""
    device = by_file.device().configure(adapters=(5,), domains=(4,))
    cdev_machine.add_device(
        Device("vfio-ap", "ap0", options={"sysfsdev": device.path, "iommufd": "io0"})
    )
    mark = by_file.instruction_mark()
    cdev_machine.remove_device("ap0")

    assert by_file.count_since(mark, "AQIC", "05.0004") == 0


# -- ap-warning-without-pgste.md --------------------------------------------------------------


def test_a_refused_machine_leaves_no_warning(freed: Workbench, ap_host: ApHost) -> None:
    """KVM_CREATE_VM that is refused for want of page status entries is no kernel bug."""
    if not ap_host.exists("/proc/sys/vm/allocate_pgste"):
        skip(
            "this kernel cannot refuse page status entries: Linux 7.2 has no such switch",
            enabled_by="--kernel debian:trixie",
        )
    ap_host.write_text("/proc/sys/vm/allocate_pgste", "0")
    freed.put_back_with(lambda: ap_host.write_text("/proc/sys/vm/allocate_pgste", "1"))
    mark = freed.log_mark()
    error = freed.client().ask("kvm").error
    said = freed.log_since(mark)

    assert error == "EINVAL"
    assert "WARNING" not in said, said


# -- ap-chzdev-dry-run.md ---------------------------------------------------------------------


def test_a_dry_run_of_chzdev_changes_nothing(ap: Workbench) -> None:
    """``chzdev --dry-run`` says "configuration will not be changed", and keeps its word."""
    ap.system.run("mkdir -p /run/lock")
    said = ap.system.run("chzdev --type ap --active --dry-run apmask=-5,-6").stdout

    assert "configuration will not be changed" in said
    assert ap.bus.read("apmask") == str(ApMask.full())

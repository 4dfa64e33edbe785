"""Intel QAT C62x: what its release notes and Linux's driver say.

On a shape where that means something (its configuration space is as the notes want it, the
kernel that reads it is real), on what the notes themselves list, and on hardware where the host
has it. ``suites/vfio_user/test_qat.py`` has identity, denylist and reset.
"""

import re
from collections.abc import Sequence
from typing import Final

import pytest

from harness.guest.sriov import Sriov
from harness.host.host import Host
from harness.model import qat
from harness.model.pci import Bdf, PciFunction, PciId
from harness.parse.dmesg import dmar_faults
from harness.testing import must_fail, skip
from suites.named_shapes.conftest import SPARE, Prepared

LISTED: Final = """\
0000:85:01.0 0000:85:01.1 0000:85:01.2 0000:85:01.3 0000:85:01.4 0000:85:01.5 0000:85:01.6
0000:85:01.7 0000:85:02.0 0000:85:02.1 0000:85:02.2 0000:85:02.3 0000:85:02.4 0000:85:02.5
0000:85:02.6 0000:85:02.7
"""
"""The virtual functions of PF 0.133.0 in section 2.1 of the release notes."""
NOTES: Final = "by what the release notes list"
A_CARD: Final = "an Intel C62x with its driver (--host local, or ssh://… of such a machine)"
UNUSED: Final = "a C62x that its driver c6xx has, with 0 in sriov_numvfs"


@pytest.fixture
def card(host: Host) -> Sriov:
    """A C62x of the host."""
    found = host.find(qat.PF)
    if not found:
        skip(f"the host has no {qat.PF}", enabled_by=A_CARD)
    return Sriov(host, found[0].bdf)


@pytest.fixture(scope="module")
def model(shape_host: Prepared) -> dict[str, PciFunction]:
    """The shapes as Linux shows them."""
    return shape_host.there.functions()


# -- virtual functions -------------------------------------------------------------------------


def check_places(physical: Bdf, found: Sequence[Bdf]) -> None:
    """The virtual functions are sixteen, the first 8 routing ids behind the physical one."""
    assert tuple(found) == qat.virtual_functions(physical)


@pytest.mark.label(NOTES)
@pytest.mark.rule("QAT-02", "QAT-03")
def test_listed_functions_are_where_they_must_be() -> None:
    """The sixteen functions that the release notes list are where the rule puts them."""
    check_places(Bdf.parse("85:00.0"), list(map(Bdf.parse, LISTED.split())))


@pytest.mark.rule("QAT-02", "QAT-03")
def test_functions_of_a_card_are_where_they_must_be(card: Sriov) -> None:
    """A card has sixteen virtual functions, in their places."""
    check_places(card.bdf, [function.bdf for function in card.virtual()])


@pytest.mark.parametrize("lost", [slice(1, None), slice(0, 15), slice(0, None, 2)])
@pytest.mark.negative_control("QAT-02", "QAT-03")
def test_missing_functions_are_noticed(lost: slice) -> None:
    """The check fails where some of them are missing."""
    with must_fail():
        check_places(Bdf.parse("85:00.0"), list(map(Bdf.parse, LISTED.split()))[lost])


def check_all_or_none(enabled: int, total: int) -> None:
    """As many virtual functions are enabled as there can be, or none."""
    assert enabled in (0, total) and total == qat.TOTAL_VFS, f"{enabled} of {total}"


@pytest.mark.rule("QAT-04")
def test_card_has_all_functions_or_none(card: Sriov) -> None:
    """A card has all of its virtual functions enabled, or none."""
    check_all_or_none(int(card.read("numvfs")), int(card.read("totalvfs")))


@pytest.mark.parametrize(("enabled", "total"), [(8, 16), (1, 16), (8, 8)])
@pytest.mark.negative_control("QAT-04")
def test_some_functions_are_noticed(enabled: int, total: int) -> None:
    """The check fails for a part of them."""
    with must_fail():
        check_all_or_none(enabled, total)


def check_only_sixteen(log: str, asked: int) -> None:
    """The PCI core says that fewer were wanted than were enabled."""
    assert f"{asked} VFs requested; only {qat.TOTAL_VFS} enabled" in log, log


@pytest.mark.rule("QAT-05", "SRV-06")
def test_linux_enables_all_of_a_card(card: Sriov, host: Host) -> None:
    """Linux's driver enables sixteen virtual functions whatever number was asked for."""
    if int(card.read("numvfs")) or not host.function(card.bdf).driver:
        skip("the card has no driver, or virtual functions", enabled_by=UNUSED)
    mark = host.kernel_log_mark()
    with card.enabled(2):
        enabled = card.read("numvfs")

    assert enabled == "16"
    check_only_sixteen(host.kernel_log_since(mark), 2)


@pytest.mark.negative_control("QAT-05", "SRV-06")
def test_other_number_is_noticed() -> None:
    """The check fails on what the PCI core says of another driver."""
    with must_fail():
        check_only_sixteen("igb 0000:02:00.0: 7 VFs requested; only 2 enabled", 2)


@pytest.mark.rule("QAT-18")
def test_heartbeat_of_a_card(card: Sriov, host: Host) -> None:
    """The heartbeat of a card with its driver is well, and no request of it failed."""
    place = host.run(
        f"ls -d /sys/kernel/debug/qat_*_{card.bdf}/heartbeat", check=False
    ).stdout.strip()
    if not place:
        skip(
            "the driver of the card shows no heartbeat",
            enabled_by="Linux 6.6 or later with debugfs and the card bound to qat_c62x",
        )

    check_heartbeat(host.read_text(f"{place}/status"), host.read_text(f"{place}/queries_failed"))


def check_heartbeat(status: str, failed: str) -> None:
    """The device answered each time (``adf_heartbeat_dbgfs.c``)."""
    assert (status.strip(), failed.strip()) == ("0", "0"), (status, failed)


@pytest.mark.parametrize(("status", "failed"), [("-1\n", "0\n"), ("0\n", "3\n")])
@pytest.mark.negative_control("QAT-18")
def test_missed_heartbeat_is_noticed(status: str, failed: str) -> None:
    """The check fails for a device that did not answer."""
    with must_fail():
        check_heartbeat(status, failed)


NO_IOMMU: Final = "IOMMU should be enabled for SR-IOV to work correctly"


def check_warned(log: str) -> None:
    """The driver says what is missing (``adf_do_enable_sriov()``)."""
    assert NO_IOMMU in log, log


@pytest.mark.rule("QAT-06")
def test_missing_iommu_is_warned_of(card: Sriov, host: Host) -> None:
    """Without an IOMMU the driver of a card warns when virtual functions are wanted."""
    if host.iommu_groups() or int(card.read("numvfs")):
        skip(
            "the host has an IOMMU, or the card has virtual functions",
            enabled_by=f"intel_iommu=off on the kernel line, and {UNUSED}",
        )
    mark = host.kernel_log_mark()
    card.write("numvfs", qat.TOTAL_VFS)

    check_warned(host.kernel_log_since(mark))


@pytest.mark.negative_control("QAT-06")
def test_missing_warning_is_noticed(shape_host: Prepared) -> None:
    """The check fails on the log of a host with an IOMMU."""
    with must_fail():
        check_warned(shape_host.there.host.kernel_log())


@pytest.mark.rule("QAT-14")
def test_functions_come_back_with_the_driver(card: Sriov, host: Host) -> None:
    """The driver of a card unloaded and loaded again, its virtual functions are there again."""
    before = card.virtual()
    if not before or any(function.driver == "vfio-pci" for function in before):
        skip(
            "the card has no virtual functions, or vfio-pci has some of them",
            enabled_by="a C62x with 16 in sriov_numvfs, none of them given to a guest,",
        )
    host.run("modprobe -r qat_c62x && modprobe qat_c62x")
    card.write("numvfs", qat.TOTAL_VFS)

    check_places(card.bdf, [function.bdf for function in card.virtual()])


@pytest.mark.negative_control("QAT-14")
def test_functions_that_stay_away_are_noticed() -> None:
    """The check fails where none comes back."""
    with must_fail():
        check_places(Bdf.parse("85:00.0"), [])


# -- errors that must be masked ----------------------------------------------------------------


def check_masked(function: PciFunction) -> None:
    """Completion Timeout, Unsupported Request and Uncorrectable Internal Error are masked."""
    open_bits = qat.unmasked(function)
    assert not open_bits, f"{function.bdf}: not masked: {open_bits:#x}"


@pytest.mark.parametrize("name", [SPARE, "qat-vf"])
@pytest.mark.rule("QAT-08")
def test_errors_are_masked(model: dict[str, PciFunction], name: str) -> None:
    """Linux shows the three errors masked in a device that masks them."""
    check_masked(model[name])


@pytest.mark.rule("QAT-08")
def test_errors_of_a_card_are_masked(card: Sriov, host: Host) -> None:
    """The three errors are masked in a card."""
    check_masked(host.function(card.bdf))


@pytest.mark.negative_control("QAT-08")
def test_unmasked_errors_are_noticed(model: dict[str, PciFunction]) -> None:
    """The check fails on a device whose mask is as the specification has it at first."""
    with must_fail():
        check_masked(model["igb-pf"])


def check_mask_is_kept(before: PciFunction, after: PciFunction) -> None:
    """The mask of the function is what it was."""
    assert qat.uncorrectable_mask(before) == qat.uncorrectable_mask(after)


@pytest.mark.rule("QAT-09")
def test_driver_leaves_the_mask_alone(card: Sriov, host: Host) -> None:
    """Linux's driver does not touch the mask: who wants errors masked does it beside it."""
    before = host.function(card.bdf)
    if before.driver != "c6xx" or card.virtual():
        skip("the card has another driver than c6xx, or virtual functions", enabled_by=UNUSED)
    host.rebind(card.bdf)

    check_mask_is_kept(before, host.function(card.bdf))


@pytest.mark.negative_control("QAT-09")
def test_changed_mask_is_noticed(model: dict[str, PciFunction]) -> None:
    """The check fails for masks that differ."""
    with must_fail():
        check_mask_is_kept(model[SPARE], model["igb-pf"])


# -- while it is in use ------------------------------------------------------------------------


def check_may_master(function: PciFunction) -> None:
    """Who has the function in use has Bus Master Enable set."""
    command = int.from_bytes(function.config[4:6], "little")
    assert function.driver is not None and command & 4, f"{function.driver}, {command:#06x}"


@pytest.mark.rule("QAT-10")
def test_function_in_use_may_master_the_bus(
    plain: object, shape_host: Prepared, model: dict[str, PciFunction]
) -> None:
    """A function that a guest has switched on has Bus Master Enable set on the host."""
    check_may_master(shape_host.there.host.function(model["qat-vf"].bdf))


@pytest.mark.negative_control("QAT-10")
def test_cleared_bus_master_is_noticed(model: dict[str, PciFunction]) -> None:
    """The check fails on a function that vfio-pci has, and nobody uses."""
    with must_fail():
        check_may_master(model[SPARE])


def check_no_faults(log: str, *functions: PciFunction) -> None:
    """No page fault of the IOMMU is by one of *functions*."""
    mine = {function.bdf for function in functions}
    found = [fault for fault in dmar_faults(log.splitlines()) if fault.source in mine]
    assert not found, found


@pytest.mark.rule("QAT-12")
def test_no_fault_by_the_function(
    plain: object, shape_host: Prepared, model: dict[str, PciFunction]
) -> None:
    """While the function is in use the IOMMU has no page fault by it."""
    check_no_faults(shape_host.there.host.kernel_log(), model["qat-vf"], model[SPARE])


@pytest.mark.negative_control("QAT-12")
def test_fault_by_the_function_is_noticed(model: dict[str, PciFunction]) -> None:
    """The check fails on a log with a fault by it."""
    line = (
        f"DMAR: [DMA Read NO_PASID] Request device [{str(model[SPARE].bdf)[5:]}] fault addr 0x1000"
        " [fault reason 0x06] PTE Read access is not set"
    )

    with must_fail():
        check_no_faults(line, model[SPARE])


def check_counters(text: str) -> None:
    """No error of the link was counted."""
    counts = {name: int(n) for name, n in re.findall(r"^(\S+) (\d+)$", text, re.MULTILINE)}
    assert counts and not any(counts.values()), counts


@pytest.mark.parametrize("kind", ["nonfatal", "fatal", "correctable"])
@pytest.mark.rule("QAT-13")
def test_no_error_is_counted(
    plain: object, shape_host: Prepared, model: dict[str, PciFunction], kind: str
) -> None:
    """The kernel counts no AER error of a function in use."""
    place = f"/sys/bus/pci/devices/{model['qat-vf'].bdf}"

    check_counters(shape_host.there.host.read_text(f"{place}/aer_dev_{kind}"))


@pytest.mark.parametrize("text", ["CmpltTO 1\nUnsupReq 0\nTOTAL_ERR_FATAL 1\n", ""])
@pytest.mark.negative_control("QAT-13")
def test_counted_errors_are_noticed(text: str) -> None:
    """The check fails on a counter, and where nothing is counted at all."""
    with must_fail():
        check_counters(text)


def check_no_fatal_error(log: str) -> None:
    """No driver was told of a fatal error by the physical function."""
    assert not qat.fatal_errors(log), qat.fatal_errors(log)


@pytest.mark.rule("QAT-17")
def test_no_fatal_error_was_received(plain: object, shape_host: Prepared) -> None:
    """The pattern of a dead physical function is not in the kernel's log."""
    check_no_fatal_error(shape_host.there.host.kernel_log())


@pytest.mark.negative_control("QAT-17")
def test_fatal_error_is_noticed() -> None:
    """The check fails on the line that the release notes quote."""
    with must_fail():
        check_no_fatal_error("c6xxvf 0000:ff:00:0: Fatal error received from PF 0x6ac20013")


# -- parameters --------------------------------------------------------------------------------


def check_parameters(hb_interval: int, quiesce_timeout: int) -> None:
    """Both module parameters of ESXi's driver are within their ranges."""
    complaints = qat.heartbeat_complaints(hb_interval, quiesce_timeout)
    assert not complaints, complaints


@pytest.mark.parametrize(("hb_interval", "quiesce_timeout"), [(5000, 20000), (500, 350)])
@pytest.mark.label(NOTES)
@pytest.mark.rule("QAT-16")
def test_parameters_of_the_notes_are_allowed(hb_interval: int, quiesce_timeout: int) -> None:
    """What the release notes suggest, and the least, are within the ranges they give."""
    check_parameters(hb_interval, quiesce_timeout)


@pytest.mark.parametrize(
    ("hb_interval", "quiesce_timeout"), [(499, 350), (5001, 350), (500, 349), (500, 20001)]
)
@pytest.mark.negative_control("QAT-16")
def test_parameters_out_of_range_are_noticed(hb_interval: int, quiesce_timeout: int) -> None:
    """The check fails just outside each range."""
    with must_fail():
        check_parameters(hb_interval, quiesce_timeout)


# -- the newer family --------------------------------------------------------------------------

GEN4_VFS: Final = tuple(
    PciId(0x8086, device) for device in (0x4941, 0x4943, 0x4945, 0x4947, 0x4949)
)


def check_driver_migrates(found: Sequence[PciFunction]) -> None:
    """Each of the functions is with the vfio driver that knows how to migrate it."""
    assert found and {function.driver for function in found} == {"qat_vfio_pci"}, [
        f"{function.bdf} with {function.driver}" for function in found
    ]


@pytest.mark.rule("QAT-22")
def test_newer_functions_have_a_driver_that_migrates(host: Host) -> None:
    """Virtual functions of the 4940 family have a vfio driver of their own."""
    found = [function for vf in GEN4_VFS for function in host.find(vf)]
    if not found:
        skip(
            "the host has no virtual function of the Intel QAT 4940 family",
            enabled_by="a machine with such a card and some (--host local, or ssh://…)",
        )

    check_driver_migrates(found)


@pytest.mark.negative_control("QAT-22")
def test_a_function_with_another_driver_is_noticed(model: dict[str, PciFunction]) -> None:
    """The virtual function of an older device, which has no such driver, fails the check."""
    with must_fail():
        check_driver_migrates([model["qat-vf"]])

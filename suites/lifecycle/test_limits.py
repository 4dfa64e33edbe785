"""What the host must have for an assignment, and what is said where it has not."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from harness.errors import MachineDied
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import assigned_device
from harness.machine.command import MachineSpec
from harness.machine.machine import Machine
from harness.suite_fixtures import Attach, Attempt, Free, Launch
from harness.testing import check_said, must_fail, skip
from suites.lifecycle.conftest import spec_with

CONTAINER = "/dev/vfio/vfio"


@pytest.fixture
def no_container(virtual_host: VirtualHost, free: Free) -> Iterator[VirtualHost]:
    """A host whose /dev/vfio/vfio is away."""
    free("nvme")
    virtual_host.run(f"mv {CONTAINER} {CONTAINER}.away")
    try:
        yield virtual_host
    finally:
        virtual_host.run(f"mv {CONTAINER}.away {CONTAINER}")


def words_for_no_container(host: Host) -> tuple[str]:
    """Return what QEMU says of a container node that is not there."""
    if host.qemu.version.has(9, 1):
        return (f"Could not open '{CONTAINER}': No such file or directory",)
    return (f"failed to open {CONTAINER}: No such file or directory",)


@pytest.mark.rule("LIF-05")
def test_missing_container_node_is_named(
    no_container: VirtualHost, free: Free, attach: Attach
) -> None:
    """Without /dev/vfio/vfio (module vfio) QEMU refuses, and names the node."""
    said = attach(no_container, free("nvme").bdf)

    check_said(said, *words_for_no_container(no_container))


@pytest.mark.full
@pytest.mark.negative_control("LIF-05")
def test_a_container_node_is_noticed(host: Host, free: Free, attach: Attach) -> None:
    """With it nothing is refused."""
    said = attach(host, free("nvme").bdf)

    with must_fail():
        check_said(said, *words_for_no_container(host))


LIMIT = ("vfio_iommu_type1", "dma_entry_limit")
"""A parameter of the kernel: mappings that a container may have."""
NO_SPACE = ("= -28 (No space left on device)",)


@pytest.fixture
def one_mapping(virtual_host: VirtualHost) -> Iterator[VirtualHost]:
    """A host that maps one range for a container, no more."""
    with virtual_host.parameter(*LIMIT, "1"):
        yield virtual_host


@pytest.mark.rule("LIF-15")
def test_mappings_can_run_out(one_mapping: VirtualHost, free: Free, attach: Attach) -> None:
    """A machine that needs more mappings than dma_entry_limit is refused for lack of space."""
    check_said(attach(one_mapping, free("nvme").bdf), *NO_SPACE)


@pytest.mark.negative_control("LIF-15")
def test_mappings_that_suffice_are_noticed(host: Host, free: Free, attach: Attach) -> None:
    """With the limit that Linux has by itself it is not."""
    said = attach(host, free("nvme").bdf)

    with must_fail():
        check_said(said, *NO_SPACE)


# -- no IOMMU backend ------------------------------------------------------------------------

TYPE1 = "vfio_iommu_type1"


@pytest.fixture
def no_backend(virtual_host: VirtualHost, free: Free) -> Iterator[VirtualHost]:
    """A host without the module that programs IOMMUs."""
    free("nvme")
    if not virtual_host.exists(f"/sys/module/{TYPE1}/initstate"):
        skip(f"{TYPE1} is built in", enabled_by="a kernel that has it as a module")
    virtual_host.run(f"rmmod {TYPE1}")
    try:
        yield virtual_host
    finally:
        virtual_host.run(f"modprobe {TYPE1}")


def check_no_model(host: Host, said: str, group: int | None) -> None:
    """QEMU found no way to use an IOMMU for the group."""
    prefix = f"failed to setup container for group {group}: "
    check_said(said, f"{prefix}No available IOMMU models")


@pytest.mark.full
@pytest.mark.rule("LIF-12")
def test_a_host_without_backend_is_refused(
    no_backend: VirtualHost, free: Free, attach: Attach
) -> None:
    """Without vfio_iommu_type1 a container has no IOMMU model, and QEMU says of which group."""
    function = free("nvme")

    check_no_model(no_backend, attach(no_backend, function.bdf), function.iommu_group)


@pytest.mark.full
@pytest.mark.negative_control("LIF-12")
def test_another_container_failure_is_noticed(
    no_container: VirtualHost, free: Free, attach: Attach
) -> None:
    """Without the container node another reason is given."""
    function = free("nvme")
    said = attach(no_container, function.bdf)

    with must_fail():
        check_no_model(no_container, said, function.iommu_group)


# -- locked memory ---------------------------------------------------------------------------

MIB = 1 << 20


def limited(host: Host, mib: int) -> AbstractContextManager[None]:
    """Have QEMU started with a limit of *mib* of locked memory while inside.

    In a user namespace of its own, so that CAP_IPC_LOCK, which root has, does not lift it.
    """
    limit = f'ulimit -l {mib * 1024} && exec unshare -U -r "$0" "$@"'
    return host.starting_by("sh", "-c", limit)


def check_too_much(said: str, log: str, mib: int) -> None:
    """QEMU could not map all RAM, and the kernel logged that it was too much to pin."""
    check_said(said, "dma_map(", "= -12 (Cannot allocate memory)")
    check_said(log, f"vfio_pin_pages_remote: RLIMIT_MEMLOCK ({mib * MIB}) exceeded")


SMALL, LARGE = 32, 1024
"""MiB; the machine has 64 MiB of RAM."""


@pytest.fixture
def user_namespaces(host: Host) -> None:
    """The kernel of the host lets a program be root in a namespace of its own."""
    if not host.exists("/proc/self/ns/user"):
        skip(
            "the kernel of the host has no user namespaces",
            enabled_by="one with CONFIG_USER_NS (--kernel debian:trixie)",
        )


@pytest.mark.full
@pytest.mark.rule("LIF-14")
@pytest.mark.negative_control("LIF-14")
@pytest.mark.usefixtures("user_namespaces")
def test_all_memory_is_pinned(host: Host, free: Free, attempt: Attempt) -> None:
    """A machine that may lock less memory than it has is refused; one that may lock all is not."""
    spec = spec_with(host, assigned_device("nvme", str(free("nvme").bdf)), name="locked")
    mark = host.kernel_log_mark()

    with limited(host, SMALL):
        said = attempt(host, spec)

    check_too_much(said, host.kernel_log_since(mark), SMALL)

    mark = host.kernel_log_mark()
    with limited(host, LARGE):
        said = attempt(host, replace(spec, name="unlocked"))
    assert not said, said
    with must_fail():
        check_too_much(said, host.kernel_log_since(mark), LARGE)


BALLOON = ("x-balloon-allowed only potentially compatible with mdev devices",)


@pytest.mark.rule("LIF-17")
def test_balloon_is_not_for_whole_devices(host: Host, free: Free, attach: Attach) -> None:
    """Memory that may be taken away is refused for a function that is no mediated device."""
    check_said(attach(host, free("nvme").bdf, x_balloon_allowed="on"), *BALLOON)


@pytest.mark.full
@pytest.mark.negative_control("LIF-17")
def test_memory_that_stays_is_noticed(host: Host, free: Free, attach: Attach) -> None:
    """Without that option there is nothing to refuse."""
    said = attach(host, free("nvme").bdf, x_balloon_allowed="off")

    with must_fail():
        check_said(said, *BALLOON)


def check_fatal(said: str, status: int) -> None:
    """QEMU aborted, saying why."""
    assert "vfio: DMA mapping failed, unable to continue" in said, said
    assert status == -6, status


def growing(host: Host, free: Free) -> MachineSpec:
    """Return a machine with a function, to which memory can be added."""
    device = assigned_device("nvme", str(free("nvme").bdf))
    return spec_with(host, device, name="growing").saying("-m", "64M,slots=1,maxmem=1G")


def last_words(machine: Machine) -> tuple[str, int]:
    """Give memory to the machine; return what it said and its exit status, 0 if it goes on."""
    backend = {"qom-type": "memory-backend-ram", "id": "more", "size": 128 << 20}
    machine.qmp.execute("object-add", backend)
    try:
        machine.qmp.execute("device_add", {"driver": "pc-dimm", "id": "dimm", "memdev": "more"})
    except MachineDied:
        return machine.stderr(), machine.wait_end(timeout=30)
    return machine.stderr(), 0


@pytest.fixture
def just_enough(virtual_host: VirtualHost, free: Free, attempt: Attempt) -> Iterator[VirtualHost]:
    """A host that maps as much as such a machine needs to start, no more."""
    spec = growing(virtual_host, free)
    for limit in range(1, 100):
        with virtual_host.parameter(*LIMIT, str(limit)):
            if not attempt(virtual_host, replace(spec, name=f"limit-{limit}")):
                yield virtual_host
                return


@pytest.mark.full
@pytest.mark.rule("LIF-16")
def test_mapping_fails_for_good_later(
    just_enough: VirtualHost, free: Free, launch: Launch
) -> None:
    """RAM that cannot be mapped for a running machine ends it: the device must reach all RAM."""
    check_fatal(*last_words(launch(growing(just_enough, free))))


@pytest.mark.full
@pytest.mark.negative_control("LIF-16")
def test_memory_that_can_be_mapped_is_noticed(host: Host, free: Free, launch: Launch) -> None:
    """Where it can be mapped the machine goes on."""
    said, status = last_words(launch(growing(host, free)))

    with must_fail():
        check_fatal(said, status)

"""What an assigned function means for migration, and migration for plugging."""

from dataclasses import replace

import pytest

from harness.host.host import Host
from harness.host.virtual_spec import assigned_device
from harness.machine.machine import Machine
from harness.suite_fixtures import Attempt, Free, Launch, RefusedCommand
from harness.testing import check_said, must_fail
from suites.lifecycle.conftest import answer_to, spec_with


def check_blocked(machine: Machine, words: str) -> None:
    """The machine cannot migrate for that reason."""
    reasons = machine.qmp.execute("query-migrate").get("blocked-reasons", [])
    assert any(words in reason for reason in reasons), reasons


SWITCHED_OFF = "Migration is disabled for VFIO device"


@pytest.mark.rule("MIG-02")
def test_switched_off_blocks(host: Host, free: Free, launch: Launch) -> None:
    """``enable-migration=off`` is a reason of its own not to migrate."""
    function = free("nvme")
    device = assigned_device("nvme", str(function.bdf), options={"enable-migration": "off"})

    check_blocked(launch(spec_with(host, device)), f"{function.bdf}: {SWITCHED_OFF}")


@pytest.mark.full
@pytest.mark.negative_control("MIG-02")
def test_another_reason_is_noticed(host: Host, free: Free, launch: Launch) -> None:
    """Where it is not off, another reason is given."""
    function = free("nvme")
    machine = launch(spec_with(host, assigned_device("nvme", str(function.bdf))))

    with must_fail():
        check_blocked(machine, f"{function.bdf}: {SWITCHED_OFF}")


@pytest.mark.full
@pytest.mark.rule("MIG-09")
def test_only_migratable_refuses(host: Host, free: Free, attempt: Attempt) -> None:
    """With ``-only-migratable`` what blocks migration is refused at the start."""
    function = free("nvme")
    spec = spec_with(host, assigned_device("nvme", str(function.bdf))).saying("-only-migratable")

    said = attempt(host, spec)

    check_said(said, "only-migratable")


@pytest.mark.full
@pytest.mark.negative_control("MIG-09")
def test_a_machine_without_blockers_is_noticed(host: Host, attempt: Attempt) -> None:
    """Without assigned functions there is nothing to refuse."""
    said = attempt(host, spec_with(host).saying("-only-migratable"))

    with must_fail():
        check_said(said, "only-migratable")


MIGRATING = ("device_add not allowed while migrating",)
PLUG = {"driver": "virtio-rng-pci", "id": "late", "bus": "rp3"}


@pytest.fixture
def migrating(host: Host, launch: Launch) -> Machine:
    """A machine that migrates, and never gets on with it."""
    machine = launch(replace(spec_with(host), name="migrating"))
    # Bytes a second. QEMU allots them by tenths of a second, and of none it thinks as of no limit.
    machine.qmp.execute("migrate-set-parameters", {"max-bandwidth": 10})
    machine.qmp.execute("migrate", {"uri": "exec:cat >/dev/null"})
    status = machine.qmp.execute("query-migrate")["status"]
    assert status in ("setup", "active"), status
    return machine


@pytest.mark.rule("LIF-24")
def test_nothing_is_plugged_while_migrating(
    migrating: Machine, refused_command: RefusedCommand
) -> None:
    """A device is not added to a machine that migrates."""
    error = refused_command(migrating, "device_add", **PLUG)

    check_said(error.description, *MIGRATING)


@pytest.mark.negative_control("LIF-24")
def test_a_machine_that_stays_is_noticed(host: Host, launch: Launch) -> None:
    """A machine that does not migrate takes the same device."""
    said = answer_to(launch(spec_with(host)), "device_add", **PLUG)

    with must_fail():
        check_said(said, *MIGRATING)

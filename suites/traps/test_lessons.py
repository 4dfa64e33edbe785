"""To trap or not to trap, in lessons: what a teacher can show, one instruction at a time.

Each of them prints what it counted (``trapline run traps/test_lessons.py -- -s -v``). The story
of the doorbell, with a real disk behind it, is in ``suites/nested/test_io.py``.
"""

import logging

import pytest

from harness.guest.system import System
from harness.host.host import Host
from harness.testing import must_fail

COUNT = 1000
FEW = COUNT // 20
"""Exits of others, as interrupts of the host, that do not disturb the lesson."""

log = logging.getLogger(__name__)


@pytest.fixture
def kvm_host(host: Host, kvm: None) -> Host:
    """The host, where KVM runs machines and counts what leaves them."""
    return host


def exits_of(system: System, instruction: str) -> int:
    """Run an instruction `COUNT` times on a vCPU of its own; return how often it left."""
    said = system.probe("kvm", "--op", instruction, "--count", COUNT, "--deadline", "60")
    log.info("%d times %s: %s exits", COUNT, instruction, said["exits"])
    return int(said["exits"])


def check_native(exits: int) -> None:
    """The processor did it itself: nobody was asked."""
    assert exits <= FEW, f"{exits} exits"


def check_sensitive(exits: int) -> None:
    """Each of them left the guest."""
    assert COUNT <= exits <= COUNT + FEW, f"{exits} exits"


@pytest.mark.rule("TRP-21")
def test_mov_is_native(kvm_host: Host) -> None:
    """``mov $7,%rax`` runs on the processor: a thousand of them cause no exit."""
    check_native(exits_of(kvm_host, "mov"))


@pytest.mark.rule("TRP-21")
def test_cpuid_is_not(kvm_host: Host) -> None:
    """``cpuid`` is sensitive, what it says is the hypervisor's: each of them exits."""
    check_sensitive(exits_of(kvm_host, "cpuid"))


@pytest.mark.negative_control("TRP-21")
def test_one_is_not_taken_for_the_other(kvm_host: Host) -> None:
    """``cpuid`` does not pass for native, and ``mov`` not for sensitive."""
    with must_fail():
        check_native(exits_of(kvm_host, "cpuid"))
    with must_fail():
        check_sensitive(exits_of(kvm_host, "mov"))

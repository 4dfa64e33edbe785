"""What only a real machine can show: listed, with what would enable it."""

from __future__ import annotations

from harness.testing import skip

IBM_Z = "an IBM Z host"

SIE = "needs guest instructions, which run behind SIE"
INTERRUPTS = "needs adapter interrupts (facility 65, AIV), which a gdbstub cannot inject"
SECURE = "needs Secure Execution (ultravisor, BAPQ, AAPQ)"
SCLP = "needs SCLP commands that configure adapters"


def test_a_guest_boots_and_sees_its_queues() -> None:
    """A guest with a matrix device lists exactly guest_matrix in its own lszcrypt."""
    skip(SIE, enabled_by=IBM_Z)


def test_a_guest_sees_hot_plugged_queues() -> None:
    """Queues that are plugged into a running guest appear on its AP bus."""
    skip(SIE, enabled_by=IBM_Z)


def test_a_guest_uses_its_queues() -> None:
    """Requests of a guest are answered by the queue it was given, and by no other."""
    skip(SIE, enabled_by=IBM_Z)


def test_a_guest_cannot_touch_other_queues() -> None:
    """An instruction to a queue outside guest_matrix gets response code 1."""
    skip(SIE, enabled_by=IBM_Z)


def test_a_guest_inside_a_guest_gets_fewer_queues() -> None:
    """At the second level the hardware uses the AND of both masks."""
    skip(SIE, enabled_by=IBM_Z)


def test_a_queue_interrupts_its_guest() -> None:
    """A guest that asks for interrupts (AQIC) gets one for each reply."""
    skip(INTERRUPTS, enabled_by=IBM_Z)


def test_a_changed_configuration_interrupts_the_guest() -> None:
    """A guest with facility 80 is told of changes by a machine check event (CHSC, SEI NT0)."""
    skip(SIE, enabled_by=IBM_Z)


def test_the_host_configures_adapters() -> None:
    """``chzcrypt --config-off`` deconfigures a card, the guest sees it."""
    skip(SCLP, enabled_by=IBM_Z)


def test_a_secure_guest_binds_its_queue() -> None:
    """A Secure Execution guest binds and associates a queue before it uses it."""
    skip(SECURE, enabled_by="an IBM z16 or newer")


def test_a_guest_migrates_after_its_device_has_left() -> None:
    """Without its matrix device a guest migrates, and gets another on the target."""
    skip("needs two hosts", enabled_by="two IBM Z hosts with adapters of the same type")

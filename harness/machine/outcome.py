"""What came of something that QEMU may refuse: a start, a hot-add, what a guest does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import LaunchFailed, MachineDied, QmpFailed
from harness.machine.command import Device
from harness.machine.machine import Machine


@dataclass(frozen=True, slots=True)
class Outcome:
    """QEMU's answer.

    :param accepted: it did what it was asked.
    :param said: all it said when it refused.
    :param orderly: the refusal was one: exit status 1, or an error of class GenericError.
    """

    accepted: bool
    said: str = ""
    orderly: bool = True


ACCEPTED = Outcome(accepted=True)


def outcome_of_launch(start: Callable[[], Machine]) -> Outcome:
    """Start a machine; end it again if QEMU accepts it."""
    try:
        start().kill()
    except LaunchFailed as error:
        return Outcome(accepted=False, said=error.stderr, orderly=error.exit_status == 1)
    return ACCEPTED


def outcome_of_hot_add(machine: Machine, device: Device) -> Outcome:
    """Hot-add *device*."""
    try:
        machine.add_device(device)
    except QmpFailed as error:
        orderly = error.error_class == "GenericError"
        return Outcome(accepted=False, said=error.summary + "\n" + error.seen, orderly=orderly)
    return ACCEPTED


def outcome_of_doing(
    machine: Machine, act: Callable[[], object], *, timeout: float = 10
) -> Outcome:
    """Do something to a running machine that may end it over that.

    :param timeout: seconds for QEMU to be gone after the connection to it ended.
    """
    try:
        act()
    except MachineDied:
        status = machine.wait_end(timeout=timeout)
        return Outcome(accepted=False, said=machine.stderr(), orderly=status == 1)
    return ACCEPTED

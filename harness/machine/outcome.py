"""What came of something that QEMU may refuse: a start, or a hot-add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import LaunchFailed, QmpFailed
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

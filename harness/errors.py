"""Every exception trapline raises on purpose, on one screen.

::

    HarnessError
    ├── ConfigError      what was asked for is wrong           usage error, before collection
    ├── HostError        the box under test cannot do it       error, never a failure
    │   ├── DeviceBusy
    │   ├── HostLacks        a test skips, and says what would enable it
    │   │   ├── NoIommu
    │   │   └── MissingDevice
    │   └── MissingPackage
    ├── ImageError       an image could not be made or is damaged
    ├── MachineError     a QEMU process
    │   ├── LaunchFailed     it died before QMP answered
    │   ├── MachineDied      it died later
    │   │   └── KvmStopped       KVM could not go on with a vCPU
    │   └── QmpFailed        it said no, or nothing
    ├── GuestError       the system inside
    │   ├── GuestCrashed     panic, oops, BUG, lockup, stall
    │   ├── TimeStandsStill  it went on from a saved state, and its timer does not wake it
    │   ├── Unreachable      SSH did not come or went away
    │   └── CommandFailed
    ├── WaitTimeout      a named condition did not hold in time
    └── ParseError       text that is not what it should be

A test that fails raises ``AssertionError``; nothing here ever is one. That is how
"the subject is wrong" and "the lab is wrong" stay apart.

Messages go in this order: what failed, what was seen, where to look, what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class HarnessError(Exception):
    """Base of everything trapline raises on purpose.

    :param summary: what failed, one line.
    :param seen: what was observed (last output, exit status), may be several lines.
    :param evidence: file or directory that holds the rest.
    :param hint: what to do next, one line.
    """

    def __init__(
        self,
        summary: str,
        *,
        seen: str = "",
        evidence: Path | str | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(summary)
        self.summary = summary
        self.seen = seen
        self.evidence = evidence
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.summary]
        if self.seen:
            lines += ["  said: " + self.seen.strip().replace("\n", "\n        ")]
        if self.evidence is not None:
            lines += [f"  see:  {self.evidence}"]
        if self.hint:
            lines += [f"  next: {self.hint}"]
        return "\n".join(lines)


class ConfigError(HarnessError):
    """The user wrote something wrong: an option, a path, a file of settings."""


class HostError(HarnessError):
    """The host cannot do what was asked of it."""


class DeviceBusy(HostError):
    """The device is used by the host or by another run and is not taken."""


class HostLacks(HostError):
    """The host lacks what a test wants; others have it.

    :param hint: what would enable the test, never nothing.
    """

    def __init__(self, summary: str, *, hint: str, seen: str = "") -> None:
        super().__init__(summary, seen=seen, hint=hint)


class NoIommu(HostLacks):
    """The host has no IOMMU, or its kernel does not use it."""


class MissingDevice(HostLacks):
    """The host does not have the device that was asked for."""


class MissingPackage(HostError):
    """A program or package that must be there is not.

    :param packages: Debian package names that provide it.
    """

    def __init__(self, summary: str, packages: Sequence[str], *, hint: str = "") -> None:
        super().__init__(
            summary, hint=hint or f"apt-get install --no-install-recommends {' '.join(packages)}"
        )
        self.packages = tuple(packages)


class ImageError(HarnessError):
    """An image could not be built, fetched or trusted."""


class MachineError(HarnessError):
    """Something about one QEMU process."""


class LaunchFailed(MachineError):
    """QEMU ended before QMP answered.

    :param exit_status: as ``subprocess`` gives it (negative: signal), None if it never ran.
    :param stderr: all that QEMU said.
    """

    def __init__(
        self,
        summary: str,
        *,
        exit_status: int | None,
        stderr: str,
        evidence: Path | str | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(summary, seen=stderr, evidence=evidence, hint=hint)
        self.exit_status = exit_status
        self.stderr = stderr


class MachineDied(MachineError):
    """QEMU ended while it was needed."""


class KvmStopped(MachineDied):
    """KVM gave up a vCPU: run state ``internal-error``.

    :param suberror: ``KVM_INTERNAL_ERROR_…`` (include/uapi/linux/kvm.h); None if QEMU said none.
    """

    def __init__(
        self, summary: str, *, seen: str, evidence: Path | str | None, suberror: int | None
    ) -> None:
        super().__init__(summary, seen=seen, evidence=evidence)
        self.suberror = suberror


class QmpFailed(MachineError):
    """QEMU refused a QMP command, or did not answer it.

    :param error_class: QMP error class (``GenericError``, ``DeviceNotFound``, …), empty if
        there was no answer.
    :param description: QEMU's text.
    """

    def __init__(
        self,
        summary: str,
        *,
        error_class: str = "",
        description: str = "",
        evidence: Path | str | None = None,
    ) -> None:
        super().__init__(summary, seen=description, evidence=evidence)
        self.error_class = error_class
        self.description = description


class GuestError(HarnessError):
    """Something about the system inside a machine."""


class GuestCrashed(GuestError):
    """A kernel said that it is broken: panic, oops, BUG, soft lockup, RCU stall.

    :param level: whose kernel: ``L0``, ``L1`` or ``L2``.
    :param kind: short name of the class of crash.
    """

    def __init__(
        self, summary: str, *, level: str, kind: str, seen: str, evidence: Path | str | None
    ) -> None:
        super().__init__(summary, seen=seen, evidence=evidence)
        self.level = level
        self.kind = kind


class TimeStandsStill(GuestError):
    """A guest that went on from a saved state does not wake, or is not woken by its timer."""


class Unreachable(GuestError):
    """SSH did not come up in time, or went away."""


class CommandFailed(GuestError):
    """A command ran and returned an exit status that was not expected."""

    def __init__(
        self, command: str, *, exit_status: int, stdout: str, stderr: str, where: str
    ) -> None:
        super().__init__(
            f"{where}: {command!r} exited with {exit_status}",
            seen=(stderr.strip() or stdout.strip())[-2000:],
        )
        self.command = command
        self.exit_status = exit_status
        self.stdout = stdout
        self.stderr = stderr


class WaitTimeout(HarnessError):
    """A named condition did not hold before its deadline."""


class ParseError(HarnessError):
    """Text or bytes that do not follow their grammar.

    :param text: the offending line (or bytes, as text).
    :param where: file, line or offset.
    """

    def __init__(self, summary: str, *, text: str, where: str) -> None:
        super().__init__(f"{where}: {summary}", seen=text)
        self.text = text
        self.where = where

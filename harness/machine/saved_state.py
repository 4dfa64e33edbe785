"""Saving a running machine, and going on with it any number of times.

Three ways, the first that a QEMU can is taken:

``private``  the memory is a file that the machine shares while it is saved; each restored one
             maps it privately, so it starts at once and copies only what it writes (QEMU
             capability ``x-ignore-shared``, 4.0; how live upgrades keep memory in place)
``mapped``   the memory goes to fixed offsets of the state file (``mapped-ram``, 9.0)
``plain``    the stream of a migration, in a file

QEMU refuses to save nvme and vfio-pci: devices come after the restore. A device without
migration state (edu) is saved as if it were new; the guest must find it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.errors import MachineError, QmpFailed, WaitTimeout
from harness.machine.command import MachineSpec, option_string
from harness.machine.qmp import Qmp
from harness.step import step
from harness.wait import Guard, wait_until

FILE_URI_SINCE = (8, 2)
"""First QEMU that takes ``file:`` as the address of a migration."""


_HALTED = re.compile(r"\bHLT=([01])\b")


class Method(StrEnum):
    """How memory is kept."""

    PRIVATE = "private"
    MAPPED = "mapped"
    PLAIN = "plain"

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Migration capabilities it needs."""
        return {
            Method.PRIVATE: ("x-ignore-shared",),
            Method.MAPPED: ("mapped-ram",),
            Method.PLAIN: (),
        }[self]


class StateBroken(MachineError):
    """A state cannot be saved, or what was saved cannot be gone on with."""


@dataclass(frozen=True, slots=True)
class SavedState:
    """The files of one state, in a directory of their own."""

    directory: Path
    method: Method

    @property
    def memory(self) -> Path:
        """The guest's memory, sparse; only for ``private``."""
        return self.directory / "memory"

    @property
    def devices(self) -> Path:
        """All else (and the memory, if it is not apart)."""
        return self.directory / "devices"


def to_be_saved(spec: MachineSpec, state: SavedState) -> MachineSpec:
    """Return *spec* as it must run to be saved into *state*."""
    return _with_memory(spec, state, share=True)


def to_go_on(spec: MachineSpec, state: SavedState, *, read_only: bool) -> MachineSpec:
    """Return *spec* as it must run to go on from *state*; then `go_on`.

    :param read_only: QEMU can open the memory for reading only (``rom=off``, 8.2).
    """
    spec = _with_memory(spec, state, share=False, read_only=read_only)
    return replace(spec, extra=(*spec.extra, "-incoming", "defer"))


def _with_memory(
    spec: MachineSpec, state: SavedState, *, share: bool, read_only: bool = False
) -> MachineSpec:
    if state.method is not Method.PRIVATE:
        return spec
    options: dict[str, str | int | bool] = {
        "id": "memory", "size": f"{spec.memory_mib}M", "mem-path": str(state.memory),
        "share": share,
    }  # fmt: skip
    if read_only:
        options |= {"readonly": True, "rom": False}
    return replace(
        spec,
        machine_options={**spec.machine_options, "memory-backend": "memory"},
        objects=(*spec.objects, option_string("memory-backend-file", options)),
    )


def save(
    qmp: Qmp, state: SavedState, *, guard: Guard, idle: bool = False, timeout: float = 120
) -> None:
    """Stop the machine and save it. It is only good for being ended then.

    :param idle: stop it when its vCPUs are halted. Needed under TCG for a machine with a guest of
        its own: QEMU saves a vCPU that runs its guest, and refuses to load it
        (``cpu_post_load``: "guest-mode inconsistent with migrated kernel nested state").
    :raise StateBroken: QEMU cannot; a device in it blocks that, or the disk is full.
    """
    with step("save %s", qmp.name):
        _set_capabilities(qmp, state.method)
        if idle:
            _stop_idle(qmp, guard, timeout)
        else:
            qmp.execute("stop")
        _migrate(
            qmp,
            lambda: qmp.execute("migrate", {"uri": _address(qmp, state.devices, "cat >")}),
            "save",
            guard,
            timeout,
        )


def _stop_idle(qmp: Qmp, guard: Guard, timeout: float) -> None:
    def halted() -> bool:
        qmp.execute("stop")
        flags = _HALTED.findall(qmp.hmp("info registers -a"))
        if flags and all(flag == "1" for flag in flags):
            return True
        qmp.execute("cont")
        return False

    try:
        wait_until(
            f"{qmp.name}: every vCPU halted", halted, timeout=timeout, guards=(guard,),
            interval=0.05, hint="something in it keeps a vCPU busy",
        )  # fmt: skip
    except WaitTimeout as error:
        raise StateBroken(error.summary, seen=error.seen, hint=error.hint) from error


def go_on(
    qmp: Qmp, state: SavedState, *, guard: Guard, timeout: float = 60, run: bool = True
) -> None:
    """Load *state* into a machine that waits for it, and let it run.

    :param run: False leaves that to somebody else, for a machine that was started paused.
    :raise StateBroken: QEMU does not take it.
    """
    with step("restore %s", qmp.name):
        _set_capabilities(qmp, state.method)
        address = _address(qmp, state.devices, "cat")
        _migrate(
            qmp, lambda: qmp.execute("migrate-incoming", {"uri": address}),
            "restore", guard, timeout,
        )  # fmt: skip
        if run:
            qmp.execute("cont")


def _migrate(
    qmp: Qmp, begin: Callable[[], object], what: str, guard: Guard, timeout: float
) -> None:
    last: dict[str, Any] = {}

    def over() -> str:
        last.clear()
        last.update(qmp.execute("query-migrate"))
        status = str(last.get("status", ""))
        return status if status in ("completed", "failed", "cancelled") else ""

    try:
        begin()
        status = wait_until(
            f"{what} {qmp.name}", over, timeout=timeout, guards=(guard,), interval=0.004,
            last_seen=lambda: json.dumps(last),
        )  # fmt: skip
    except (MachineError, WaitTimeout) as error:
        said = error.description if isinstance(error, QmpFailed) else error.seen
        raise StateBroken(
            f"{qmp.name}: could not {what} its state", seen=f"{error.summary}\n{said}".strip(),
            evidence=qmp.log_path,
        ) from error  # fmt: skip
    if status != "completed":
        raise StateBroken(
            f"{qmp.name}: could not {what} its state",
            seen=str(last.get("error-desc", "")) or json.dumps(last),
            evidence=qmp.log_path,
        )


def _set_capabilities(qmp: Qmp, method: Method) -> None:
    wanted = [{"capability": name, "state": True} for name in method.capabilities]
    if not wanted:
        return
    try:
        qmp.execute("migrate-set-capabilities", {"capabilities": wanted})
    except QmpFailed as error:
        raise StateBroken(
            f"{qmp.name}: this QEMU cannot keep memory the way '{method}'",
            seen=error.description,
            evidence=qmp.log_path,
            hint="--saved-state names another way: private, mapped, plain",
        ) from error


def _address(qmp: Qmp, path: Path, program: str) -> str:
    version = qmp.execute("query-version")["qemu"]
    if (version["major"], version["minor"]) >= FILE_URI_SINCE:
        return f"file:{path}"
    quoted = str(path).replace("'", "'\\''")
    return f"exec:{program} '{quoted}'"

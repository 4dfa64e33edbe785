"""Which accelerator runs guests, decided by running code, never by a file being there.

``/dev/kvm`` may exist, open and create a VM, and still never get a kernel into long mode. So:
first 64-bit code through ``/dev/kvm`` with a deadline (``mov $7,%rax; hlt`` must leave RAX = 7),
then, where a boot can be tried, a kernel must pass early boot. Else TCG, with the reason.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness import paths
from harness.errors import GuestError, MachineError, WaitTimeout
from harness.guest.system import System
from harness.machine.command import MachineSpec
from harness.machine.launch import Launch
from harness.machine.machine import Machine
from harness.step import step


class Accel(enum.Enum):
    """What runs a machine's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """An accelerator and the reason why it is this one."""

    accel: Accel
    reason: str

    @property
    def option(self) -> str:
        """The value of ``-accel``."""
        return "kvm" if self.accel is Accel.KVM else "tcg,thread=multi"


def probe_accelerator(system: System) -> Accelerator:
    """Run 64-bit guest code on *system*, with a deadline."""
    with step("probe the accelerator of %s", system.name):
        if not system.exists("/dev/kvm"):
            return Accelerator(Accel.TCG, "there is no /dev/kvm")
        said = system.probe("kvm", "--deadline", "10", timeout=40, check=False)
    if said.get("kvm") != "ok" or said.get("rax") not in ("7", "0x7"):
        return Accelerator(Accel.TCG, f"/dev/kvm is of no use: {said.get('reason', 'no answer')}")
    if said.get("hardware") == "no":
        return Accelerator(
            Accel.TCG,
            "/dev/kvm runs 64-bit code (RAX = 7) but interprets it:"
            " 200 cpuid did not cost 200 exits",
        )
    return Accelerator(Accel.KVM, "64-bit guest code ran through /dev/kvm: RAX = 7")


def confirm_by_boot(found: Accelerator, spec: MachineSpec, launch: Launch) -> Accelerator:
    """Boot *spec* with KVM when *found* says KVM: a kernel must get through early boot.

    :param spec: a small guest whose console says ``trapline: ready``.
    """
    if found.accel is not Accel.KVM:
        return found
    trial = replace(spec, accel="kvm", name="kvm-trial")
    try:
        with (
            step("try a kernel under KVM"),
            Machine.launch(trial, launch) as machine,
        ):
            machine.console.wait_for("Linux version", timeout=8, guards=(machine.check,))
            machine.console.wait_for("trapline: ready", timeout=30, guards=(machine.check,))
    except (MachineError, GuestError, WaitTimeout) as error:
        return Accelerator(
            Accel.TCG,
            f"/dev/kvm runs 64-bit code, but a kernel does not pass early boot: {error.summary}",
        )
    return Accelerator(Accel.KVM, "a kernel booted under KVM")


def recall(key: str) -> Accelerator | None:
    """Return the decision for *key* made since this computer was started, if there is one."""
    try:
        known = json.loads(_kept(key).read_text(encoding="utf-8"))
        return Accelerator(Accel(known["accel"]), str(known["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _kept(key: str) -> Path:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return paths.cache_dir() / "accelerator" / f"{boot}-{key}.json"


def remembered(key: str, decide: Callable[[], Accelerator]) -> Accelerator:
    """Return the decision for *key* made since this computer was started, or make it."""
    known = recall(key)
    if known is not None:
        return known
    decision = decide()
    path = _kept(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"accel": decision.accel.value, "reason": decision.reason}), encoding="utf-8"
    )
    return decision

"""What a machine's run state and last words say of vCPUs that stopped by themselves."""

from __future__ import annotations

from pathlib import Path

from harness.errors import KvmStopped, MachineDied
from harness.parse.crash import find_crashes, kvm_suberror


def stopped_by_itself(name: str, status: str, said: str, evidence: Path) -> MachineDied:
    """Return the error for a machine in the run state *status*.

    :param status: ``internal-error`` after a KVM failure, ``guest-panicked``, …: ``RunState`` of
        QEMU's qapi/run-state.json.
    :param said: all that QEMU said, which is kept as ``qemu.log`` in *evidence*.
    """
    log_file = evidence / "qemu.log"
    cause = next(iter(find_crashes(said.splitlines())), None)
    what = f"{name}: its vCPUs stopped by themselves: {status}"
    what += f" ({cause.crash.text})" if cause is not None else ""
    words = said[-1500:]
    if status == "internal-error":
        return KvmStopped(what, seen=words, evidence=log_file, suberror=kvm_suberror(said))
    return MachineDied(what, seen=words, evidence=log_file)

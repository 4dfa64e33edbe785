"""Saved states of virtual hosts: made when first wanted, kept by what shapes them.

The ladder: a host that is up; a host with a nested guest up in it. Both before any device is
assigned. The key of a state covers the lab's QEMU, both command lines, every image and kernel,
so what is found is right, or damaged and made again, but never old.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness import paths
from harness.errors import ConfigError, ImageError
from harness.guest.keys import make_key
from harness.host.accelerator import Accel, Accelerator
from harness.host.virtual import VirtualHost, wait_until_ready
from harness.images.cache import Artifact, Store, hash_file, key_of, remove_tree
from harness.images.manifest import Entry
from harness.lab.parts import Parts
from harness.machine.command import MachineSpec, Sockets, command_line
from harness.machine.launch import Launch
from harness.machine.machine import Machine
from harness.machine.saved_state import Method, SavedState, StateBroken, save, to_be_saved
from harness.step import step

log = logging.getLogger(__name__)

FORMAT = "1"
"""Changes when states made before cannot be used any more."""
CAP = 8 << 30
"""Bytes on the disk that all states together may take (``TRAPLINE_STATES_CAP``)."""
SMALL = 16 << 20
"""Bytes up to which a file of a state is hashed each time it is used; memory is larger."""
_FACTS = "facts.json"
_NAMES = {False: "host", True: "nested"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What must be known of a state to go on with it."""

    method: str
    nested_directory: str = ""
    """Of the machine that was left running in the host; empty if there is none."""
    accel: str = ""
    """Accelerator of that machine."""
    accel_reason: str = ""
    made: str = ""
    """Tells it from one that was made before in its place."""

    @property
    def accelerator(self) -> Accelerator:
        """What runs the guests of the host."""
        return Accelerator(Accel(self.accel), self.accel_reason)


@dataclass(frozen=True, slots=True)
class Rung:
    """What a state is of.

    :param nested: the machine that runs in the host, without its accelerator; None for none.
    """

    host: MachineSpec
    nested: MachineSpec | None = None


class States:
    """The states below one directory, shared by all processes of this user."""

    def __init__(self, parts: Parts, root: Path | None = None) -> None:
        self._parts = parts
        self.store = states_store(root)

    def obtain(self, rung: Rung, method: Method) -> tuple[SavedState, Facts]:
        """Return the state of *rung*, made now if it is not there or damaged.

        :raise StateBroken: it cannot be saved, or kept.
        :raise HarnessError: the host or the guest in it does not come up.
        """
        key = self._key(rung, method)
        name = _NAMES[rung.nested is not None]
        try:
            found = self._find(name, key)
            if found is None:
                self._check_space(rung, method)
                found = self.store.obtain(
                    key, lambda work: self._make(rung, method, work), name,
                    inputs=self._about(rung),
                )  # fmt: skip
                evict(self.store, keep=found)
        except (ImageError, OSError) as error:
            raise StateBroken(
                f"the saved state {name} {key} cannot be kept", seen=str(error),
                evidence=self.store.root,
                hint="TRAPLINE_CACHE names another place, --no-saved-state does without",
            ) from error  # fmt: skip
        with contextlib.suppress(OSError):  # a cache that is only readable is fine
            (found.dir.parent / "used").touch()
        return SavedState(found.dir, method), _read_facts(found.dir)

    def discard(self, rung: Rung, method: Method, facts: Facts, why: str) -> None:
        """Remove the state of *rung*, which cannot be gone on with; it is made again then.

        :param facts: of the state that is meant; one that another process made meanwhile stays.
        """
        name, key = _NAMES[rung.nested is not None], self._key(rung, method)
        log.warning("the saved state %s %s is made again: %s", name, key, why)
        for artifact in self.store.entries():
            if (artifact.name, artifact.key) == (name, key):
                with contextlib.suppress(StateBroken):
                    if _read_facts(artifact.dir) != facts:
                        continue
                self.store.remove(artifact)

    # inside

    def _find(self, name: str, key: str) -> Artifact | None:
        """Return the state if it is whole; what QEMU and we read of it whole is hashed anew.

        The memory is not: that would take as long as ten restores. Of it, as of every image,
        size and times are compared, and `trapline state verify` computes the hash.
        """
        found = self.store.find(name, key)
        if found is None:
            return None
        try:
            recorded = found.manifest().files
            changed = [
                file
                for file, entry in recorded.items()
                if "/" not in file and entry.size <= SMALL and Entry.of(found.dir / file) != entry
            ]
            if not changed:
                _read_facts(found.dir)
                return found
            why = f"{', '.join(changed)} changed"
        except (ImageError, StateBroken, OSError) as error:
            why = str(error)
        log.warning("the saved state %s %s is damaged and is made again: %s", name, key, why)
        self.store.remove(found)
        return None

    def _key(self, rung: Rung, method: Method) -> str:
        parts, images = self._parts, str(self._parts.images.workshop.store.root)
        inputs = [FORMAT, method.value, parts.l0_qemu.identity]
        if not rung.host.accel.startswith("tcg"):
            inputs.append(_this_processor())
        for spec, placed in ((rung.host, parts.l0_qemu), (rung.nested, parts.placed_qemu())):
            if spec is None:
                continue
            inputs += [*placed.argv_prefix, *(f"{k}={v}" for k, v in placed.env.items())]
            inputs += command_line(spec, Sockets(""))
        files = [disk.path for disk in rung.host.disks]
        if rung.host.boot is not None:
            files += [rung.host.boot.kernel, rung.host.boot.initrd]
        # What lies in the store has its key in its path.
        inputs += [hash_file(Path(f)) for f in files if f and not f.startswith(images)]
        return key_of(*(word.replace(images, "") for word in inputs))

    def _about(self, rung: Rung) -> dict[str, str]:
        parts = self._parts
        about = {
            "lab QEMU": f"{parts.l0_qemu.label} {parts.l0_qemu.version}",
            "host kernel": parts.kernel.release,
            "QEMU under test": f"{parts.qemu.label} {parts.qemu.version}",
            "IOMMU": str(rung.host.iommu or "none"),
        }
        if rung.nested is not None:
            about["guest kernel"] = parts.guest.release
            about["guest's IOMMU"] = str(rung.nested.iommu or "none")
        return about

    def _check_space(self, rung: Rung, method: Method) -> None:
        self.store.root.mkdir(parents=True, exist_ok=True)
        wanted = rung.host.memory_mib << 20 if method is Method.PRIVATE else 1 << 30
        free = shutil.disk_usage(self.store.root).free
        # A full disk would kill the machine in its boot, by SIGBUS.
        if free < wanted:
            raise StateBroken(
                "no room for a saved state",
                seen=f"{free >> 20} MiB free, {wanted >> 20} MiB may be needed",
                evidence=self.store.root,
                hint="trapline state rm, trapline images rm, or TRAPLINE_CACHE elsewhere",
            )

    def _make(self, rung: Rung, method: Method, work: Path) -> None:
        parts, state = self._parts, SavedState(work, method)
        evidence = work / "evidence"
        evidence.mkdir()
        facts = Facts(method.value, made=secrets.token_hex(8))
        with _run_directory() as keys:
            key = make_key(keys)
            host = VirtualHost.boot(
                to_be_saved(rung.host, state),
                l0_qemu=parts.l0_qemu,
                key=key,
                qemu=parts.placed_qemu(),
                guest=parts.guest_files(key),
                evidence=evidence,
            )
            try:
                if rung.nested is not None:
                    facts = _leave_guest(host, rung.nested, evidence, facts)
                host.transport.close()
                save(
                    host.machine.qmp, state, guard=host.machine.check_alive,
                    idle=rung.host.accel.startswith("tcg"),
                )  # fmt: skip
            finally:
                host.close()
        (work / _FACTS).write_text(json.dumps(asdict(facts)), encoding="utf-8")


def evict(store: Store, *, keep: Artifact) -> None:
    """Remove states that were not used for longest until the rest fits.

    :param keep: stays, however large it is.
    """
    cap = cap_of(os.environ)
    with contextlib.suppress(OSError):  # damaged ones count for nobody
        remove_tree(store.root / "damaged")
    try:
        there = [(one, bytes_of(one), last_use(one)) for one in store.entries()]
    except FileNotFoundError as error:
        log.info("another process removes saved states as well: %s", error)
        return
    for one in in_excess(there, keep=keep, cap=cap):
        with step("remove the saved state %s %s, unused for longest", one.name, one.key):
            store.remove(one)


def in_excess(
    states: Iterable[tuple[Artifact, int, float]], *, keep: Artifact, cap: int
) -> list[Artifact]:
    """Return the states that must go, oldest first, so that the rest fits into *cap* (pure).

    :param states: each with the bytes that it takes and the time of its last use.
    :param keep: is never among them, however large it is.
    :param cap: bytes.
    """
    by_age = sorted(states, key=lambda one: one[2])
    total = sum(size for _, size, _ in by_age)
    go = []
    for one, size, _ in by_age:
        if total <= cap:
            break
        if one != keep:
            total -= size
            go.append(one)
    return go


def cap_of(environ: Mapping[str, str]) -> int:
    """Return how many bytes all states together may take.

    :raise ConfigError: ``TRAPLINE_STATES_CAP`` is no number of bytes.
    """
    text = environ.get("TRAPLINE_STATES_CAP", str(CAP))
    found = re.fullmatch(r"(\d+)([KMG]?)", text.strip(), re.IGNORECASE)
    if found is None:
        raise ConfigError(
            f"TRAPLINE_STATES_CAP is no number of bytes: {text!r}",
            hint="8000000000, or 8G; M and K are known too",
        )
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2].upper()]


def states_store(root: Path | None = None) -> Store:
    """Return the store of saved states."""
    return Store(root or paths.cache_dir() / "states")


def bytes_of(artifact: Artifact) -> int:
    """Return what a state takes on the disk: memory that was never touched takes nothing."""
    files = (path for path in artifact.dir.rglob("*") if path.is_file())
    return sum(path.lstat().st_blocks * 512 for path in files)


def last_use(artifact: Artifact) -> float:
    """Return when a state was last gone on with, or made; seconds since 1970."""
    for name in ("used", "manifest.json"):
        with contextlib.suppress(OSError):
            return (artifact.dir.parent / name).stat().st_mtime
    return 0.0


def _leave_guest(host: VirtualHost, spec: MachineSpec, evidence: Path, facts: Facts) -> Facts:
    place = evidence / spec.name
    place.mkdir()
    accelerator = host.accelerator
    launch = Launch(
        host.transport, host.qemu, place, level=host.guest_level, timeout=120, stays=True
    )
    machine = Machine.launch(replace(spec, accel=accelerator.option), launch)
    try:
        with step("boot %s", spec.name):
            wait_until_ready(machine, timeout=180)
        directory = machine.leave()
    except BaseException:
        machine.kill()
        raise
    return replace(
        facts,
        nested_directory=directory,
        accel=accelerator.accel.value,
        accel_reason=accelerator.reason,
    )


def _read_facts(directory: Path) -> Facts:
    try:
        return Facts(**json.loads((directory / _FACTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StateBroken(
            "the record of a saved state cannot be read", seen=str(error), evidence=directory
        ) from error


@contextlib.contextmanager
def _run_directory() -> Iterator[Path]:
    directory = paths.runtime_dir()
    try:
        yield directory
    finally:
        paths.remove_runtime_dir(directory)


def _this_processor() -> str:
    """Return what a machine under KVM sees of this computer: a state is good on no other."""
    text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    kept = re.findall(r"^(?:model name|flags|microcode)\s*:.*$", text, re.MULTILINE)
    return "\n".join([os.uname().release, *sorted(set(kept))])

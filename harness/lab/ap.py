"""AP hosts of a run: gone on with from a saved state where that can be, else booted.

On them nothing blocks saving: the adapters are not QEMU's. So a host is saved when its modules
are loaded and its queues are bound, and every later one is there in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from harness.ap.ap_host import ApHost, NoApInstruction
from harness.ap.bring_up import discover_symbols
from harness.ap.spec import MEMORY_MIB, ApHostFiles, ApHostSpec, default_hardware
from harness.ap.symbols import Symbols, forget_symbols, remembered_symbols
from harness.errors import GuestError, ImageError, MachineError, WaitTimeout
from harness.images.cache import Artifact, Store, hash_file, key_of
from harness.images.qemu_build import QemuBuild
from harness.lab.states import evict, states_store
from harness.machine.command import Sockets, command_line
from harness.machine.launch import Runnable
from harness.machine.saved_state import Method, SavedState, StateBroken
from harness.model.ap.hardware import ApHardware
from harness.step import step

log = logging.getLogger(__name__)

FORMAT = "ap-1"
"""Changes when states made before cannot be used any more."""
STATE_NAME = "ap-host"


class InnerQemu(Runnable, Protocol):
    """The QEMU that runs in an AP host, on a disk."""

    @property
    def erofs(self) -> Path:
        """The disk, mounted at ``/opt/qemu``."""


class ApImage(Protocol):
    """What an AP host is made of (`harness.images.ap_host.ApHostImage`)."""

    @property
    def vmlinuz(self) -> Path:
        """The kernel."""

    @property
    def initrd(self) -> Path:
        """Its system."""

    @property
    def inner_qemu(self) -> InnerQemu:
        """The QEMU that runs in it."""

    @property
    def qemu(self) -> QemuBuild:
        """The QEMU that it runs on."""

    @property
    def release(self) -> str:
        """As ``uname -r`` says."""


class ApLab:
    """Opens AP hosts of one image.

    :param ways: to save them, best first; empty: every host boots.
    :param work: directory for the evidence of boots that find addresses or make states.
    """

    def __init__(
        self,
        image: ApImage,
        *,
        ways: Sequence[Method],
        work: Path,
        store: Store | None = None,
    ) -> None:
        self.image = image
        self.ways = tuple(ways)
        self.store = store or states_store()
        self._work = work

    def spec(
        self,
        *,
        modules: str = "group",
        append: str = "",
        hardware: ApHardware | None = None,
        memory_mib: int = MEMORY_MIB,
    ) -> ApHostSpec:
        """Return what shapes a host.

        :param hardware: its adapters; None: the usual ones.
        """
        return ApHostSpec(self.files, hardware or default_hardware(), modules, append, memory_mib)

    @property
    def files(self) -> ApHostFiles:
        """The images as a machine is given them."""
        return ApHostFiles(
            os.fspath(self.image.vmlinuz),
            os.fspath(self.image.initrd),
            os.fspath(self.image.inner_qemu.erofs),
        )

    def symbols(self) -> Symbols:
        """Return the addresses in the kernel, found now if they are not known."""

        def discover() -> Symbols:
            return discover_symbols(
                self.spec(), qemu=self.image.qemu, evidence=self._evidence("addresses")
            )

        return remembered_symbols(self._kernel_key, discover)

    def open(self, spec: ApHostSpec, *, evidence: Path) -> ApHost:
        """Return a host that is up; the caller closes it.

        :param evidence: directory for what it says.
        """
        for way in self.ways:
            for last in (False, True):
                try:
                    found = self._obtain(spec, way)
                except (StateBroken, ImageError, OSError) as error:
                    log.warning("no saved AP host (%s), it boots: %s", way.value, error)
                    break
                state = SavedState(found.dir, way)
                try:
                    host = ApHost.restore(
                        spec, state, qemu=self.image.qemu, symbols=self.symbols(),
                        evidence=evidence, inner_qemu=self.image.inner_qemu,
                    )  # fmt: skip
                except (MachineError, GuestError, WaitTimeout, OSError) as error:
                    if last:
                        log.warning("the saved AP host is of no use, it boots: %s", error)
                        break
                    log.warning("the saved AP host is made again: %s", error)
                    self.store.remove(found)
                    continue
                _copy_logs(found.dir / "evidence", evidence / "boot")
                return host
        return self.boot(spec, evidence=evidence)

    def boot(self, spec: ApHostSpec, *, evidence: Path, state: SavedState | None = None) -> ApHost:
        """Boot a host; once more with new addresses if the known ones lead nowhere."""

        def start() -> ApHost:
            return ApHost.boot(
                spec, qemu=self.image.qemu, symbols=self.symbols(), evidence=evidence,
                inner_qemu=self.image.inner_qemu, state=state,
            )  # fmt: skip

        try:
            return start()
        except NoApInstruction as error:
            log.warning("%s; they are looked for again", error.summary)
            forget_symbols(self._kernel_key)
            return start()

    # inside

    @property
    def _kernel_key(self) -> str:
        return hash_file(self.image.vmlinuz)[:20]

    def _evidence(self, name: str) -> Path:
        place = self._work / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _obtain(self, spec: ApHostSpec, way: Method) -> Artifact:
        key = self._key(spec, way)
        found = self.store.find(STATE_NAME, key)
        if found is None:
            found = self.store.obtain(
                key, lambda work: self._make(spec, way, work), STATE_NAME,
                inputs={
                    "kernel": self.image.release,
                    "lab QEMU": f"{self.image.qemu.label} {self.image.qemu.version}",
                    "modules": spec.modules or "none",
                    "adapters": ", ".join(
                        f"{number:02x} {card.type_name}"
                        for number, card in spec.hardware.cards.items()
                    ),
                },
            )  # fmt: skip
            evict(self.store, keep=found)
        with contextlib.suppress(OSError):  # a cache that is only readable is fine
            (found.dir.parent / "used").touch()
        return found

    def _make(self, spec: ApHostSpec, way: Method, work: Path) -> None:
        state, evidence = SavedState(work, way), work / "evidence"
        evidence.mkdir()
        with step("make a saved AP host"):
            host = self.boot(spec, evidence=evidence, state=state)
            try:
                host.save(state)
            finally:
                host.close()

    def _key(self, spec: ApHostSpec, way: Method) -> str:
        qemu, images = self.image.qemu, str(Store().root)
        words = [FORMAT, way.value, qemu.identity, spec.modules, repr(spec.hardware)]
        words += command_line(spec.machine(), Sockets(""))
        for file in (spec.files.kernel, spec.files.initrd, spec.files.inner_qemu):
            # What lies in the store has its key in its path.
            if file and not file.startswith(images):
                words.append(hash_file(Path(file)))
        return key_of(*(word.replace(images, "") for word in words))


def _copy_logs(seen: Path, place: Path) -> None:
    """Keep what was *seen* when a state was made: states go, and are read-only."""
    for path in (path for path in seen.rglob("*") if path.is_file()):
        copy = place / path.relative_to(seen)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)

"""The peer virtme-ng: its first command on our kernel, with our QEMU.

Measured is the time from its start to the first line that ``uname -r`` prints in the guest,
which must be the release of our kernel.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import paths, process
from harness.bench.laboratory import Laboratory
from harness.bench.model import Role, Sample, Subject
from harness.bench.virtme_kit import Kit, obtain_kit
from harness.errors import MachineError, MissingPackage
from harness.images.images import KernelSource
from harness.machine.launch import Runnable

NAME = "virtme-ng"
LEAN = "virtme-ng without modules"
_TIMEOUT = 180.0


def find_vng() -> Path | None:
    """Return the program: beside our Python, or on the search path."""
    beside = Path(sys.executable).parent / "vng"
    if beside.is_file():
        return beside
    found = shutil.which("vng")
    return Path(found) if found else None


def require_vng() -> Path:
    """Return the program.

    :raise MissingPackage: it is not installed.
    """
    found = find_vng()
    if found is None:
        raise MissingPackage(
            "virtme-ng is not installed",
            ["virtme-ng"],
            hint=f"{sys.executable} -m pip install virtme-ng (the extra [bench] of trapline)",
        )
    return found


def version(vng: Path) -> str:
    """Return what ``vng --version`` says, without the name."""
    said = subprocess.run(
        [vng, "--version"], capture_output=True, text=True, check=False, timeout=60
    ).stdout
    return said.removeprefix("virtme-ng").strip() or "of unknown version"


def subjects(lab: Laboratory, measure: str) -> tuple[Subject, ...]:
    """Return virtme-ng as it is, and as it is fastest; told why not, if it was not asked for."""
    if NAME not in lab.against:
        return (Subject.absent(NAME, Role.PEER, f"add --against {NAME}"),)
    vng = require_vng()
    if shutil.which("strings") is None and shutil.which("file") is None:
        why = "virtme-ng reads the kernel's version with 'file': apt-get install file"
        return (Subject.absent(NAME, Role.PEER, why),)
    source = KernelSource.parse(lab.parts.settings.kernel)
    kit = obtain_kit(lab.parts.images.workshop, lab.parts.kernel, source)

    def run(place: Path, *options: str) -> Sample:
        return {measure: first_command(vng, kit, lab, place, options)}

    return (
        Subject(NAME, Role.PEER, run),
        Subject(LEAN, Role.PEER, lambda place: run(place, "--skip-modules")),
    )


def notes(lab: Laboratory) -> tuple[str, ...]:
    """Return what a reader must know of it."""
    if NAME not in lab.against:
        return ()
    return (
        f"virtme-ng {version(require_vng())}: same QEMU, kernel, memory, one CPU and accelerator;"
        " root by virtio-fs, a small Debian with udev; to the first line of its command",
    )


def command(vng: Path, kit: Kit, qemu: Path, *, memory_mib: int, tcg: bool) -> list[str]:
    """Return the words that start virtme-ng for one command, without it. Pure."""
    # fmt: off
    return [
        os.fspath(vng),
        "--run", os.fspath(kit.kernel),
        "--root", os.fspath(kit.root),
        "--qemu", os.fspath(qemu),
        *(["--disable-kvm"] if tcg else []),
        "--memory", f"{memory_mib}M",
        "--cpus", "1",
        "--busybox", os.fspath(kit.busybox),
    ]
    # fmt: on


def wrapper(words: Sequence[str | os.PathLike[str]], env: dict[str, str] | None = None) -> str:
    """Return a shell script that runs *words* with its own arguments behind them. Pure."""
    lines = ["#!/bin/sh"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in (env or {}).items()]
    return "\n".join([*lines, f'exec {shlex.join(os.fspath(word) for word in words)} "$@"', ""])


@contextlib.contextmanager
def programs(qemu: Runnable, kit: Kit) -> Iterator[Path]:
    """Have a directory with ``qemu`` and ``virtiofsd`` as programs of one word."""
    directory = paths.runtime_dir()
    try:
        for name, text in {
            "qemu": wrapper(qemu.argv_prefix, dict(qemu.env)),
            "virtiofsd": wrapper(kit.virtiofsd),
        }.items():
            (directory / name).write_text(text)
            (directory / name).chmod(0o700)
        yield directory
    finally:
        paths.remove_runtime_dir(directory)


def first_command(
    vng: Path, kit: Kit, lab: Laboratory, place: Path, options: Sequence[str]
) -> float:
    """Return the seconds from the start of virtme-ng to the first line of its command.

    :raise MachineError: no line came, or it is not the release of the kernel.
    """
    memory = lab.host_spec(ssh_port=0).memory_mib
    with programs(lab.parts.l0_qemu, kit) as tools, (place / "vng.log").open("wb") as log:
        words = command(
            vng, kit, tools / "qemu", memory_mib=memory, tcg=lab.accelerator.startswith("tcg")
        )
        words += [*options, "--", "uname", "-r"]
        (place / "vng.cmd").write_text(shlex.join(words) + "\n")
        began = time.monotonic()
        child = process.start(
            words,
            stdout=subprocess.PIPE,
            stderr=log,
            env={
                **os.environ,
                "PATH": f"{tools}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
                # What it keeps of its own goes when the measurement ends.
                "HOME": os.fspath(tools),
                "XDG_CACHE_HOME": os.fspath(tools),
                "XDG_CONFIG_HOME": os.fspath(tools),
                "TMPDIR": os.fspath(tools),
            },
        )
        try:
            line = _first_line(child, began + _TIMEOUT)
            took = time.monotonic() - began
        finally:
            process.kill(child)
            if child.stdout is not None:
                child.stdout.close()
    if line.strip() != kit.release:
        raise MachineError(
            "virtme-ng did not run its command",
            seen=line + (place / "vng.log").read_text(errors="replace")[-1000:],
            evidence=place,
        )
    return took


def _first_line(child: subprocess.Popen[bytes], deadline: float) -> str:
    """Return the first line that is not empty; what there is, if the time or the output ends."""
    assert child.stdout is not None
    said = b""
    while not (said.lstrip().endswith(b"\n") or b"\n" in said.lstrip()):
        ready, _, _ = select.select([child.stdout], [], [], max(0, deadline - time.monotonic()))
        came = os.read(child.stdout.fileno(), 65536) if ready else b""
        if not came:
            break
        said += came
    return said.lstrip().split(b"\n")[0].decode(errors="replace").replace("\r", "")

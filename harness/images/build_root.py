"""Compilers of a Debian suite in a directory of their own, entered instead of installed.

The compiler is the one that the suite's kernel was built with, whatever this machine has, and
nothing of this machine is used but its kernel. Entering needs no root where a user may have
namespaces of his own; root without any (in a container) enters a copy.
"""

from __future__ import annotations

import functools
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ImageError
from harness.images.cache import remove_tree
from harness.images.debian import Package, unpack
from harness.images.pack import remove_matching
from harness.images.recipe import PackageSet
from harness.images.tools import run_tool
from harness.images.workshop import Workshop

WORK = Path("/work")
"""Where the directory that is worked in appears inside."""

_DROP = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info",
    "usr/share/lintian", "usr/share/bug", "usr/lib/x86_64-linux-gnu/gconv",
    "usr/libexec/gcc-cross/*/*/lto1", "usr/libexec/gcc-cross/*/*/g++-mapper-server",
    "usr/bin/*-lto-dump-*",
)  # fmt: skip

_MOUNT_AND_ENTER = """\
mount --rbind /dev "$1/dev" && mount --rbind /proc "$1/proc" || exit
mount --bind "$2" "$1/work" || exit
root=$1; shift 2
exec chroot "$root" "$@"
"""

# The tree must stay what it is: root may write to it whatever its modes say.
_CLEAN = (
    "/usr/bin/env", "-i", f"--chdir={WORK}", "PATH=/usr/bin:/bin", "LC_ALL=C",
    "PYTHONDONTWRITEBYTECODE=1",
)  # fmt: skip

_DEVICES = {"null": (1, 3), "zero": (1, 5), "urandom": (1, 9)}
"""Numbers of devices (Documentation/admin-guide/devices.txt)."""


@dataclass(frozen=True, slots=True)
class BuildRoot:
    """A tree with compilers."""

    root: Path
    key: str

    def run(self, argv: Sequence[str | os.PathLike[str]], work: Path, *, purpose: str) -> str:
        """Run a program of the tree with *work* as its ``/work`` and return what it printed.

        :param purpose: what it is for, begins the error message.
        :raise ImageError: it failed, or the tree cannot be entered.
        """
        inside = [*_CLEAN, f"TMPDIR={WORK}", *argv]
        namespaces = _namespaces()
        if namespaces is not None:
            paths = (str(self.root), str(work))
            enter = (*namespaces, "sh", "-c", _MOUNT_AND_ENTER, "sh", *paths)
            return run_tool([*enter, *inside], purpose=purpose)
        return self._run_in_copy(inside, work, purpose)

    def _run_in_copy(
        self, inside: Sequence[str | os.PathLike[str]], work: Path, purpose: str
    ) -> str:
        copy = work.with_name(f"{work.name}.root")
        shutil.copytree(self.root, copy, symlinks=True)
        try:
            for name, (major, minor) in _DEVICES.items():
                (copy / "dev").chmod(0o755)
                os.mknod(copy / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
            copy.chmod(0o755)
            (copy / "work").rmdir()
            work.rename(copy / "work")
            try:
                return run_tool(["chroot", copy, *inside], purpose=purpose)
            finally:
                (copy / "work").rename(work)
        finally:
            remove_tree(copy)


def obtain_build_root(
    workshop: Workshop, tools: PackageSet, name: str = "s390x-tools"
) -> BuildRoot:
    """Return the tree with the packages *tools*; *name* is what the store calls it."""

    def build(into: Path, packages: Sequence[Package]) -> None:
        unpack(packages, into)
        remove_matching(into, _DROP)
        for name in ("dev", "work", "tmp", "proc"):
            (into / name).mkdir(exist_ok=True)
        for name, target in {"awk": "mawk", "sh": "dash"}.items():
            # Links that installation scripts would have made.
            if not os.path.lexists(into / "usr/bin" / name):
                (into / "usr/bin" / name).symlink_to(target)

    artifact = workshop.obtain(name, {"drop": " ".join(_DROP)}, build, tools)
    return BuildRoot(artifact.dir, artifact.key)


@functools.cache
def _namespaces() -> tuple[str, ...] | None:
    """Return the words that start a program with mounts of its own; None if only a copy will do.

    :raise ImageError: neither is possible.
    """
    ways: list[tuple[str, ...]] = [("unshare", "--user", "--map-root-user", "--mount")]
    if os.geteuid() == 0:
        ways.insert(0, ("unshare", "--mount"))
    said = ""
    for way in ways:
        try:
            run_tool([*way, "true"], purpose="enter a directory of compilers")
        except ImageError as error:
            said = error.seen
        else:
            return way
    if os.geteuid() == 0:
        return None
    raise ImageError(
        "compilers of another system cannot be started: this user may not have namespaces",
        seen=said,
        hint="sysctl kernel.unprivileged_userns_clone=1 (and, where AppArmor forbids it, "
        "kernel.apparmor_restrict_unprivileged_userns=0), or build this image once as root",
    )

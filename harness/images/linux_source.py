"""Debian's package of the source of Linux, unpacked beside compilers and made with them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.images.build_root import WORK, BuildRoot, obtain_build_root
from harness.images.debian import Package, unpack
from harness.images.recipe import PackageSet
from harness.images.tools import run_tool
from harness.images.workshop import Workshop
from harness.step import step

SOURCE, OUT = "linux", "out"
"""Directories of a job's work: the source as it was, and what is made of it."""
CCACHE = "ccache"
"""Directory of a job's work with what was compiled before, where the job has it."""

_ENVIRONMENT = (
    "KBUILD_BUILD_USER=trapline", "KBUILD_BUILD_HOST=trapline",
    "KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970",
    f"HOME={WORK}", f"CCACHE_DIR={WORK / CCACHE}", "CCACHE_COMPILERCHECK=content",
    "CCACHE_MAXSIZE=1G",
)  # fmt: skip
# Not CCACHE_DEPEND: every file includes all of the configuration, and only what the preprocessor
# leaves of it says whether a changed line touches the file.

# Only there so that their dependencies are not looked for.
_ASSUME = ("binutils", "bzip2", "xz-utils", "coreutils")


def source_package(suite: str, series: str) -> PackageSet:
    """Return the package with the source of *series* (``7.3``)."""
    return PackageSet(suite=suite, packages=(), alone=(f"linux-source-{series}",), assume=_ASSUME)


def obtain_kernel_tools(workshop: Workshop, tools: PackageSet) -> BuildRoot:
    """Return the compilers."""
    return obtain_build_root(workshop, tools, "kernel-tools")


class LinuxSource:
    """One build in ``<into>/work``.

    :param version: of the source, for people.
    """

    def __init__(self, into: Path, tools: BuildRoot, version: str) -> None:
        self.into = into
        self.work = into / "work"
        self.version = version
        self._tools = tools

    def unpack(self, packages: Sequence[Package], leave_out: Sequence[str]) -> None:
        """Unpack the source without the files that the patterns *leave_out* name."""
        where = self.into / "package"
        unpack(packages, where)
        (self.work / SOURCE).mkdir(parents=True)
        with step("unpack the source of Linux %s", self.version):
            run_tool(
                [
                    "tar", "-x", "-I", "xz -T0", "-f", next(where.glob("usr/src/*.tar.xz")),
                    "-C", self.work / SOURCE, "--strip-components=1", "--no-same-owner",
                    *(f"--exclude={pattern}" for pattern in leave_out),
                ],
                purpose="unpack the source of Linux",
            )  # fmt: skip
        shutil.rmtree(where)

    def make(self, words: Sequence[str], purpose: str, *environment: str) -> None:
        """Run the kernel's make with ``out`` as its place for all that it makes.

        :param environment: ``NAME=value``.
        """
        self.run(
            [
                *environment, "make", "-C", WORK / SOURCE, f"O={WORK / OUT}",
                "HOSTCC=ccache gcc", "CC=ccache gcc", *words,
            ],
            purpose,
        )  # fmt: skip

    def run(self, argv: Sequence[str | os.PathLike[str]], purpose: str) -> None:
        """Run a program among the compilers; *purpose* begins the error message."""
        self._tools.run([*_ENVIRONMENT, *argv], self.work, purpose=f"{purpose} {self.version}")

"""Which packages the modules of one Debian kernel are built from; all of its very version."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import ImageError
from harness.images.debian import DebianSuite, Selected
from harness.images.recipe import PackageSet
from harness.images.workshop import Workshop

# Never downloaded; only there so that their dependencies are not looked for.
_ASSUME = ("linux-image", "initramfs-tools", "linux-base", "kmod", "debconf", "debconf-2.0")


class SourceGone(ImageError):
    """The mirror no longer has what the modules of this kernel are built from."""


@dataclass(frozen=True, slots=True)
class KernelPackages:
    """Names as the kernel's header package gives them, pinned to the kernel's version."""

    version: str
    """Of the package: ``6.12.107-1``."""
    headers: tuple[str, ...]
    build_tools: str
    """kbuild, compiled for this machine."""
    source: str
    compiler: str
    """The one the kernel was compiled with, made for s390x: ``gcc-14-s390x-linux-gnu``."""

    def sets(self, suite: str, architecture: str) -> tuple[PackageSet, PackageSet]:
        """Return what has to be fetched: headers for the kernel's machine, the rest for ours."""

        def pinned(*names: str) -> tuple[str, ...]:
            return tuple(f"{name}={self.version}" for name in names)

        return (
            PackageSet(
                suite=suite, architecture=architecture, packages=(), alone=pinned(*self.headers),
                assume=_ASSUME,
            ),
            PackageSet(
                suite=suite, packages=(), alone=pinned(self.build_tools, self.source),
                assume=_ASSUME,
            ),
        )  # fmt: skip


def find_kernel_packages(
    workshop: Workshop, suite: str, architecture: str, release: str, version: str
) -> KernelPackages:
    """Return the packages for the kernel *release*, which came in a package of *version*.

    :raise SourceGone: the mirror has other versions only; says which.
    """
    target = workshop.suite(
        PackageSet(suite=suite, architecture=architecture, packages=(), assume=_ASSUME)
    )
    name = f"linux-headers-{release}"
    try:
        closure = target.resolve([f"{name}={version}"])
    except ImageError as error:
        raise explain(workshop, error, release, version, suite) from error
    return KernelPackages(
        version,
        tuple(one.name for one in closure if one.name.startswith("linux-headers-")),
        _only(closure, r"(linux-kbuild-.*)", name),
        f"linux-source-{_series(release)}",
        # In newer suites the headers depend on gcc-N-for-host, which is the cross compiler.
        _only(closure, r"(gcc-\d+)(?:-s390x-linux-gnu)?", name) + "-s390x-linux-gnu",
    )


def explain(
    workshop: Workshop, error: ImageError, release: str, version: str, suite: str
) -> ImageError:
    """Return *error*, or what it means: the mirror has no packages of *version* any more."""
    if "was not found" not in error.seen and "Unable to locate" not in error.seen:
        return error
    machine = workshop.suite(PackageSet(suite=suite, packages=(), assume=_ASSUME))
    source = f"linux-source-{_series(release)}"
    return SourceGone(
        f"the modules of kernel {release} cannot be built: the mirror has moved on",
        seen=f"needed is version {version}; the mirror has {_newest(machine, source)}",
        hint="trapline images build ap-host --refresh takes the kernel it has now",
    )


def _series(release: str) -> str:
    """Return ``6.12`` of ``6.12.107+deb13-s390x``."""
    match = re.match(r"\d+\.\d+", release)
    return match[0] if match else release


def _only(closure: list[Selected], pattern: str, of: str) -> str:
    for one in closure:
        match = re.fullmatch(pattern, one.name)
        if match:
            return match[1]
    raise ImageError(
        f"{of} does not say what modules are built with",
        seen=f"none of the packages it needs is called {pattern}: "
        + ", ".join(one.name for one in closure),
    )


def _newest(suite: DebianSuite, name: str) -> str:
    """Return what the mirror has of one package, for people."""
    try:
        versions = [one.version for one in suite.resolve((), alone=[name]) if one.name == name]
    except ImageError:
        versions = []
    return f"{name} {versions[0] if versions else '(none)'}"

"""The AP host: a virtual s390x machine with stock kernel code and no adapters of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.images.ap_modules import ARCHITECTURE, ApModules, obtain_ap_modules
from harness.images.ap_programs import obtain_ap_programs
from harness.images.ap_qemu import InnerQemu, obtain_inner_qemu
from harness.images.ap_recipe import ApHostRecipe
from harness.images.ap_root import obtain_ap_root
from harness.images.cache import key_of
from harness.images.kernel import BuiltKernel, obtain_kernel
from harness.images.kernel_packages import SourceGone
from harness.images.kernel_source import KernelSource, is_s390x
from harness.images.qemu_build import QemuBuild
from harness.images.recipe import KernelRecipe, load_recipe
from harness.images.workshop import Workshop

OUTER_QEMU = "debian:trixie"
"""The QEMU that runs AP hosts, unless another is asked for."""


@dataclass(frozen=True, slots=True)
class ApHostImage:
    """What an AP host is started from."""

    kernel: BuiltKernel
    modules: ApModules | None
    """Built for this kernel; None if it has vfio_ap itself."""
    initrd: Path
    """newc archive, not compressed: the whole system but the inner QEMU."""
    inner_qemu: InnerQemu
    qemu: QemuBuild
    """``qemu-system-s390x`` for this machine."""

    @property
    def key(self) -> str:
        """Return a hash of all that runs inside: for what is found out about this system."""
        return key_of(self.kernel.key, self.initrd.parent.parent.name, self.inner_qemu.key)

    @property
    def vmlinuz(self) -> Path:
        """Return the kernel image."""
        return self.kernel.vmlinuz

    @property
    def config(self) -> Path | None:
        """Return the kernel's configuration, None for one given as a file."""
        return self.kernel.config

    @property
    def release(self) -> str:
        """Return what ``uname -r`` says."""
        return self.kernel.release

    @property
    def label(self) -> str:
        """Return how the kernel was asked for: ``debian:trixie``."""
        return self.kernel.label


def obtain_ap_host(
    workshop: Workshop,
    source: KernelSource | None = None,
    *,
    qemu: str = OUTER_QEMU,
    inner_qemu: str = "",
) -> ApHostImage:
    """Return the AP host with the kernel *source*, by default the recipe's Debian suite.

    :param qemu: runs the host: ``system``, ``debian:SUITE``, a binary.
    :param inner_qemu: Debian suite of the QEMU in the host; empty: the recipe's.
    :raise ConfigError: the kernel is not for s390x.
    :raise ImageError: something cannot be fetched or built.
    """
    recipe = load_recipe(ApHostRecipe, "ap-host")
    source = source or KernelSource(suite=load_recipe(KernelRecipe, "ap-kernel").debian.suite)
    if source.bzimage is not None and not is_s390x(source.bzimage):
        raise ConfigError(
            f"kernel {source.bzimage} is not one for {ARCHITECTURE}",
            hint="give arch/s390/boot/bzImage:MODULES_DIR, or debian:SUITE",
        )
    with ThreadPoolExecutor(2) as pool:
        # Two lines of work that wait for each other's downloads, not for each other's results.
        build = pool.submit(QemuBuild.resolve, qemu, workshop, "qemu-s390x")
        inner = pool.submit(obtain_inner_qemu, workshop, inner_qemu)
        kernel, modules = kernel_with_modules(workshop, source, recipe)
        programs = obtain_ap_programs(workshop, recipe)
        initrd = obtain_ap_root(workshop, recipe, kernel, modules, programs)
        return ApHostImage(kernel, modules, initrd, inner.result(), build.result())


def kernel_with_modules(
    workshop: Workshop, source: KernelSource, recipe: ApHostRecipe
) -> tuple[BuiltKernel, ApModules | None]:
    """Return the kernel and what was built for it, both of one version.

    A kernel whose source the mirror no longer has makes room for the one that the mirror has.

    :raise SourceGone: the mirror has not all of that one either.
    """
    kernel = obtain_kernel(workshop, source, name="ap-kernel")
    try:
        return kernel, obtain_ap_modules(workshop, kernel, source, recipe)
    except SourceGone:
        newer = obtain_kernel(workshop.refreshing(), source, name="ap-kernel")
        if newer.key == kernel.key:
            raise
        return newer, obtain_ap_modules(workshop, newer, source, recipe)

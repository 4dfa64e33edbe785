"""Every image by name: `Images(store).kernel()`, `.host()`, `.guest(kernel)`, `.probe()`.

The first call builds (minutes, needs the network once), the next takes milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.images.ap_host import OUTER_QEMU, ApHostImage, obtain_ap_host
from harness.images.ap_programs import obtain_ap_programs
from harness.images.ap_recipe import ApHostRecipe
from harness.images.cache import Store
from harness.images.debian import Progress
from harness.images.dpdk import Dpdk, obtain_dpdk
from harness.images.guest import obtain_guest
from harness.images.host import obtain_host_initrd, obtain_host_root
from harness.images.kernel import BuiltKernel, obtain_kernel
from harness.images.kernel_source import KernelSource
from harness.images.kernel_tests import KernelTests, obtain_kernel_tests
from harness.images.mirror import Mirror
from harness.images.probe import obtain_probe
from harness.images.recipe import load_recipe
from harness.images.requirements import require_packages
from harness.images.workshop import Workshop

__all__ = ["ApHostImage", "GuestImage", "HostImage", "Images", "KernelImage", "KernelSource"]


@dataclass(frozen=True, slots=True)
class KernelImage:
    """A kernel to start virtual hosts and nested guests with."""

    built: BuiltKernel
    initrd_for_host: Path
    """Mounts the disk with serial ``root`` and goes there."""

    @property
    def vmlinuz(self) -> Path:
        """Return the bzImage."""
        return self.built.vmlinuz

    @property
    def config(self) -> Path | None:
        """Return its ``.config``, None for a bzImage given as a file."""
        return self.built.config

    @property
    def modules_erofs(self) -> Path | None:
        """Return the disk to mount at ``/lib/modules``, None if everything is built in."""
        return self.built.modules_erofs

    @property
    def release(self) -> str:
        """Return what ``uname -r`` says."""
        return self.built.release

    @property
    def label(self) -> str:
        """Return how it was asked for: ``debian:trixie`` or the file's name."""
        return self.built.label


@dataclass(frozen=True, slots=True)
class HostImage:
    """The system of a virtual host."""

    root_erofs: Path


@dataclass(frozen=True, slots=True)
class GuestImage:
    """A nested guest."""

    vmlinuz: Path
    initrd: Path
    erofs: Path
    """Disk with ``vmlinuz`` and ``initrd``, for the host to mount at ``/opt/guest``."""
    release: str


class Images:
    """Makes and finds images.

    :param progress: told of downloads.
    :param refresh: ask the mirror for newer packages even where nothing is missing.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        mirror: Mirror | None = None,
        progress: Progress | None = None,
        refresh: bool = False,
    ) -> None:
        self.workshop = Workshop(store, mirror=mirror, progress=progress, refresh=refresh)

    def kernel(self, source: KernelSource | None = None) -> KernelImage:
        """Return the kernel *source*; None is the recipe's Debian kernel.

        :raise ImageError: it cannot be fetched or built.
        :raise MissingPackage: a program that builds images is not installed.
        """
        require_packages()
        built = obtain_kernel(self.workshop, source)
        return KernelImage(built, obtain_host_initrd(self.workshop, built))

    def host(self) -> HostImage:
        """Return the root file system of the virtual host."""
        require_packages()
        return HostImage(obtain_host_root(self.workshop))

    def guest(self, kernel: KernelImage) -> GuestImage:
        """Return the nested guest that runs *kernel*."""
        require_packages()
        built = obtain_guest(self.workshop, kernel.built)
        return GuestImage(kernel.vmlinuz, built.initrd, built.erofs, kernel.release)

    def ap_probe(self) -> Path:
        """Return the static program for AP hosts, for s390x."""
        return obtain_ap_programs(self.workshop, load_recipe(ApHostRecipe, "ap-host")) / "ap-probe"

    def ap_host(
        self, source: KernelSource | None = None, *, qemu: str = OUTER_QEMU, inner_qemu: str = ""
    ) -> ApHostImage:
        """Return the AP host; see `obtain_ap_host`."""
        require_packages()
        return obtain_ap_host(self.workshop, source, qemu=qemu, inner_qemu=inner_qemu)

    def dpdk(self) -> Dpdk:
        """Return the disk with DPDK's testpmd; only for tests of drivers in user space."""
        require_packages()
        return obtain_dpdk(self.workshop)

    def kernel_tests(self) -> KernelTests:
        """Return the tests that come with Linux; only for those who run them."""
        require_packages()
        return obtain_kernel_tests(self.workshop)

    def probe(self) -> Path:
        """Return the static C program that touches devices."""
        require_packages()
        return obtain_probe(self.workshop)

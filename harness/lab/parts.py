"""Everything a run is made of, gathered from its settings: images, kernels, QEMU builds."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from harness.errors import ConfigError
from harness.guest.keys import RunKey
from harness.guest.local import LocalTransport
from harness.guest.system import System
from harness.host.accelerator import Accelerator, confirm_by_boot, probe_accelerator, remembered
from harness.host.host import GuestFiles, PlacedQemu
from harness.host.virtual_spec import TEST_DEVICES, HostFiles, nested_spec
from harness.images.ap_host import ApHostImage
from harness.images.dpdk import Dpdk
from harness.images.images import GuestImage, HostImage, Images, KernelImage, KernelSource
from harness.images.kernel_tests import KernelTests
from harness.images.qemu_build import COMPILED, QemuBuild
from harness.machine.launch import Launch
from harness.settings import Settings


class Parts:
    """Images and builds of one run; each is made or found when first asked for.

    The first use of a cold cache takes minutes and shows what it does; later ones milliseconds.
    """

    def __init__(self, settings: Settings, images: Images | None = None) -> None:
        self.settings = settings
        self.images = images or Images()

    @cached_property
    def qemu(self) -> QemuBuild:
        """The QEMU under test."""
        return QemuBuild.resolve(self.settings.qemu, self.images.workshop)

    @cached_property
    def l0_qemu(self) -> QemuBuild:
        """The QEMU that runs virtual hosts."""
        if self.settings.l0_qemu == self.settings.qemu:
            return self.qemu
        return QemuBuild.resolve(self.settings.l0_qemu, self.images.workshop)

    @cached_property
    def kernel(self) -> KernelImage:
        """Kernel of the virtual host."""
        return self.images.kernel(KernelSource.parse(self.settings.kernel))

    @cached_property
    def guest_kernel(self) -> KernelImage:
        """Kernel of the nested guest."""
        wanted = self.settings.guest_kernel
        return self.images.kernel(KernelSource.parse(wanted)) if wanted else self.kernel

    @cached_property
    def host(self) -> HostImage:
        """Root file system of the virtual host."""
        return self.images.host()

    @cached_property
    def guest(self) -> GuestImage:
        """The nested guest."""
        return self.images.guest(self.guest_kernel)

    @cached_property
    def probe(self) -> Path:
        """The static helper."""
        return self.images.probe()

    @cached_property
    def ap_host(self) -> ApHostImage:
        """The s390x host without a mainframe; only for those who test vfio-ap.

        Of the settings, ``kernel`` and ``qemu`` are what runs in it, ``l0_qemu`` runs it, unless
        that is one that is compiled here, for x86-64.
        """
        lab = self.settings.l0_qemu
        return self.images.ap_host(
            KernelSource.parse(self.settings.kernel),
            qemu=Settings().l0_qemu if lab.startswith(COMPILED) else lab,
            inner_qemu=debian_suite(self.settings.qemu),
        )

    @cached_property
    def dpdk(self) -> Dpdk:
        """DPDK's testpmd; only for those who test drivers in user space."""
        return self.images.dpdk()

    @cached_property
    def kernel_tests(self) -> KernelTests:
        """The tests that come with Linux; only for those who run them."""
        return self.images.kernel_tests()

    def with_guests_like_their_host(self) -> Parts:
        """Return the same with nested guests that run the kernel of their host."""
        chosen = self.settings.model_copy(update={"guest_kernel": ""})
        return Parts(chosen, self.images)

    def gather(self) -> None:
        """Make everything now, with what is missing built and shown."""
        for part in (self.qemu, self.l0_qemu, self.kernel, self.guest, self.host, self.probe):
            assert part is not None
        self.qemu.pack()

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the test devices that the lab's QEMU has."""
        return tuple(
            name for name, d in TEST_DEVICES.items() if self.l0_qemu.features.has_device(d.driver)
        )

    def host_files(self) -> HostFiles:
        """Return the images of the virtual host."""
        return HostFiles(
            kernel=str(self.kernel.vmlinuz),
            initrd=str(self.kernel.initrd_for_host),
            root=str(self.host.root_erofs),
            qemu=str(self.qemu.pack().erofs),
            guest=str(self.guest.erofs),
            modules=str(self.kernel.modules_erofs or ""),
        )

    def placed_qemu(self) -> PlacedQemu:
        """Return the QEMU under test as it is started in the virtual host."""
        packed = self.qemu.pack()
        return PlacedQemu(
            packed.argv_prefix,
            packed.env,
            self.qemu.label,
            self.qemu.version,
            self.qemu.features,
        )

    def guest_files(self, key: RunKey) -> GuestFiles:
        """Return the nested guest as it lies in the virtual host."""
        return GuestFiles(
            "/opt/guest/vmlinuz",
            "/opt/guest/initrd",
            self.guest.release,
            key,
        )

    @property
    def accelerator_key(self) -> str:
        """What the decision about the accelerator is kept for."""
        return f"{self.l0_qemu.identity[:16]}-{self.guest.release}"

    def accelerator(self, work: Path) -> Accelerator:
        """Return what runs virtual hosts on this computer, and why.

        :param work: directory for the evidence of the trial, if one is made.
        """
        local = ThisComputer(self.probe)

        def decide() -> Accelerator:
            trial = nested_spec(
                accel="kvm",
                kernel=str(self.guest.vmlinuz),
                initrd=str(self.guest.initrd),
            )
            evidence = work / "kvm-trial"
            evidence.mkdir(parents=True, exist_ok=True)
            launch = Launch(local.transport, self.l0_qemu, evidence, level="L1")
            return confirm_by_boot(probe_accelerator(local), trial, launch)

        return remembered(self.accelerator_key, decide)


class ThisComputer(System):
    """This computer, for those who only look: no root, no journal.

    :param probe: the static helper in the cache.
    """

    def __init__(self, probe: Path) -> None:
        super().__init__(LocalTransport(), level="L0")
        self._probe = str(probe)

    @property
    def probe_path(self) -> str:
        """The helper in the cache."""
        return self._probe


def debian_suite(spec: str) -> str:
    """Return the Debian suite that the name of a build gives.

    :raise ConfigError: it names something else, which an AP host cannot carry.
    """
    kind, _, suite = spec.partition(":")
    if kind != "debian" or not suite:
        raise ConfigError(
            f"QEMU {spec!r} cannot run in an AP host: it takes packages for s390x",
            hint="name a suite: --qemu debian:trixie",
        )
    return suite


def check_host_word(word: str) -> None:
    """Refuse a ``--host`` that names nothing.

    :raise ConfigError: it is neither virtual, local nor an ssh URL.
    """
    if word not in ("virtual", "local") and not word.startswith("ssh://"):
        raise ConfigError(
            f"not a host: {word!r}", hint="use virtual, local, or ssh://user@name:port?key=FILE"
        )

"""Looking at this computer: what it has that matters for runs. Nothing is changed or built."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import paths
from harness.errors import HarnessError
from harness.guest.system import System
from harness.host.accelerator import Accelerator, probe_accelerator, recall
from harness.host.drivers import why_in_use
from harness.host.virtual_spec import TEST_DEVICES
from harness.images.cache import Store
from harness.images.environments import environments
from harness.images.images import Images, KernelSource
from harness.images.mirror import machine_mirror, read_sources
from harness.images.offline import Offline
from harness.images.qemu_build import QemuBuild
from harness.images.requirements import missing_packages
from harness.lab.parts import Parts, ThisComputer
from harness.lab.states import bytes_of, states_store
from harness.model.machine_facts import (
    AcceleratorFacts,
    CacheFacts,
    CpuFacts,
    FunctionFacts,
    IommuFacts,
    KernelFacts,
    MachineFacts,
    MirrorFacts,
    QemuFacts,
    VfioFacts,
)
from harness.model.pci import PciFunction
from harness.settings import Settings

MODULES = ("vfio", "vfio_pci", "vfio_iommu_type1", "iommufd")
_BRIDGE = 0x06
"""PCI base class of bridges: they carry others and are not given away."""


def offline_parts(settings: Settings) -> Parts:
    """Return the parts of a run as far as they are in the cache."""
    images = Images()
    images.workshop = Offline()
    return Parts(settings, images)


def is_complete(parts: Parts) -> bool:
    """Say whether all that a run needs is in the cache."""
    try:
        parts.gather()
    except HarnessError:
        return False
    return True


def look(settings: Settings, *, deep: bool = False, root: Path = Path("/")) -> MachineFacts:
    """Return what is known of this computer, without the rules.

    :param deep: boot a kernel under KVM to decide about it, if that was not done before.
    :param root: of the file system, for tests.
    """
    with ThreadPoolExecutor(1) as pool:
        mirror = pool.submit(_mirror)  # asks apt, which takes a second
        parts = offline_parts(settings)
        complete = is_complete(parts)
        iommu = _iommu(root)
        suites = sorted({*_fetched_suites(), "trixie"})
        memory = _memory(root)
        return MachineFacts(
            kernel=platform.release(),
            is_root=os.geteuid() == 0,
            cpu=_cpu(root),
            accelerator=_accelerator(parts, deep=deep, complete=complete),
            iommu=iommu,
            vfio=_vfio(root),
            functions=_functions(root),
            qemus=_qemus([*(f"debian:{suite}" for suite in suites), "system"]),
            kernels=_kernels([f"debian:{suite}" for suite in suites]),
            cache=_cache(complete),
            memory_total=memory.get("MemTotal", 0),
            memory_available=memory.get("MemAvailable", 0),
            missing_packages=tuple(missing_packages()),
            mirror=mirror.result(),
            l0_qemu=settings.l0_qemu,
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _names(path: Path) -> tuple[str, ...]:
    return tuple(sorted(os.listdir(path))) if path.is_dir() else ()


def _cpu(root: Path) -> CpuFacts:
    text = _read(root / "proc/cpuinfo")
    flags = set((re.search(r"^flags\s*:\s*(.*)", text, re.M) or ["", ""])[1].split())
    vendor = (re.search(r"^vendor_id\s*:\s*(\S+)", text, re.M) or ["", ""])[1]
    nested = [
        _read(root / f"sys/module/{name}/parameters/nested").strip()
        for name in ("kvm_intel", "kvm_amd")
    ]
    return CpuFacts(
        architecture=platform.machine(),
        vendor=vendor,
        count=len(os.sched_getaffinity(0)),
        virtualisation=next((flag for flag in ("svm", "vmx") if flag in flags), ""),
        is_virtual="hypervisor" in flags,
        nested={"1": "Y", "0": "N"}.get("".join(nested), "".join(nested)),
    )


def _accelerator(parts: Parts, *, deep: bool, complete: bool) -> AcceleratorFacts:
    device = "absent"
    if os.path.exists("/dev/kvm"):
        device = "there" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "forbidden"
    known: Accelerator | None = None
    remembered = False
    with contextlib.suppress(HarnessError):
        known = recall(parts.accelerator_key)
        remembered = known is not None
    with contextlib.suppress(HarnessError):
        if known is None and deep and complete:
            with tempfile.TemporaryDirectory(prefix="trapline-doctor-") as work:
                known = parts.accelerator(Path(work))
        elif known is None:
            known = probe_accelerator(ThisComputer(parts.probe))
    if known is None:
        return AcceleratorFacts(device, "", "the helper that tries is not built yet", False)
    return AcceleratorFacts(device, known.accel.value, known.reason, remembered)


def _iommu(root: Path) -> IommuFacts:
    words = _read(root / "proc/cmdline").split()
    return IommuFacts(
        tables=tuple(
            name
            for name in ("DMAR", "IVRS", "VIOT")
            if (root / "sys/firmware/acpi/tables" / name).exists()
        ),
        units=_names(root / "sys/class/iommu"),
        groups=len(_names(root / "sys/kernel/iommu_groups")),
        options=tuple(word for word in words if "iommu" in word.split("=")[0]),
    )


def _vfio(root: Path) -> VfioFacts:
    modules = {}
    tree = root / "lib/modules" / platform.release()
    listed = _read(tree / "modules.dep") + _read(tree / "modules.builtin")
    for name in MODULES:
        if (root / "sys/module" / name).is_dir():
            modules[name] = "loaded"
        elif re.search(rf"/{name.replace('_', '[-_]')}\.ko", listed):
            modules[name] = "available"
        else:
            modules[name] = "absent"
    return VfioFacts(
        modules=modules,
        container=(root / "dev/vfio/vfio").exists(),
        iommufd=(root / "dev/iommu").exists(),
        cdevs=(root / "dev/vfio/devices").is_dir(),
    )


def _functions(root: Path) -> tuple[FunctionFacts, ...]:
    system = ThisComputer(Path("probe"))
    wanted = {device.id: device.name for device in TEST_DEVICES.values()}
    try:
        found = system.functions() if (root / "sys/bus/pci/devices").is_dir() else ()
    except HarnessError:
        return ()
    return tuple(
        FunctionFacts(
            bdf=str(function.bdf),
            id=str(function.id),
            class_code=f"{function.class_code:06x}",
            driver=function.driver or "",
            group=function.iommu_group,
            test_device=wanted.get(function.id, ""),
            obstacle=_obstacle(system, function),
        )
        for function in found
    )


def _obstacle(system: System, function: PciFunction) -> str:
    if function.class_code >> 16 == _BRIDGE:
        return "a bridge"
    if reason := why_in_use(system, function.bdf):
        return f"in use by the host: {reason}"
    if function.iommu_group is None:
        return "in no IOMMU group"
    return ""


def _qemus(specs: list[str]) -> tuple[QemuFacts, ...]:
    found = []
    for spec in specs:
        with contextlib.suppress(HarnessError):
            build = QemuBuild.resolve(spec, Offline())
            devices = tuple(
                name for name, d in TEST_DEVICES.items() if build.features.has_device(d.driver)
            )
            found.append(QemuFacts(spec, str(build.version), devices))
    return tuple(found)


def _kernels(specs: list[str]) -> tuple[KernelFacts, ...]:
    images = Images()
    images.workshop = Offline()
    found = []
    for spec in specs:
        with contextlib.suppress(HarnessError):
            kernel = images.kernel(KernelSource.parse(spec))
            config = _read(kernel.config) if kernel.config else ""
            iommufd = bool(re.search(r"^CONFIG_IOMMUFD=[ym]", config, re.M)) if config else None
            found.append(KernelFacts(spec, kernel.release, iommufd))
    return tuple(found)


def _cache(complete: bool) -> CacheFacts:
    store = Store()
    sizes = []
    for artifact in store.entries():
        with contextlib.suppress(HarnessError):
            sizes.append(artifact.manifest().size)
    there = next(place for place in (store.root, *store.root.parents) if place.is_dir())
    states = [bytes_of(artifact) for artifact in states_store().entries()]
    own = [environment.size for environment in environments()]
    return CacheFacts(
        len(sizes),
        sum(sizes),
        shutil.disk_usage(there).free,
        complete,
        states=len(states),
        states_size=sum(states),
        environments=len(own),
        environments_size=sum(own),
    )


def _mirror() -> MirrorFacts:
    try:
        uri = machine_mirror().uri
    except HarnessError:
        return MirrorFacts(False, _fetched_suites())
    named = [
        s for source in read_sources() if source.uri.rstrip("/") == uri for s in source.suites
    ]
    return MirrorFacts(True, tuple(sorted({*named, *_fetched_suites()})))


def _fetched_suites() -> tuple[str, ...]:
    """Return the suites whose package lists of this machine were fetched before.

    `DebianSuite` keeps them; a name that was only asked for has no time of an update.
    """
    place = paths.cache_dir() / "apt"
    names = [name for name in _names(place) if (place / name / "updated").is_file()]
    found = (re.fullmatch(r"(.+?)(-s390x)?-[0-9a-f]{8}", name) for name in names)
    return tuple(sorted({m[1] for m in found if m and not m[2]}))


def _memory(root: Path) -> dict[str, int]:
    found = re.findall(r"^(\w+):\s+(\d+) kB", _read(root / "proc/meminfo"), re.M)
    return {name: int(size) * 1024 for name, size in found}

"""``trapline images``: see, make, check and remove what virtual hosts are made of."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import paths
from harness.errors import ConfigError, ImageError
from harness.images.cache import Artifact, Store, remove_tree
from harness.images.debian import Progress
from harness.images.images import Images, KernelImage, KernelSource
from harness.images.linux_source import CCACHE
from harness.images.qemu_arm import RECIPE as ARM
from harness.images.qemu_arm import make_arm_qemu
from harness.images.qemu_build import QemuBuild
from harness.step import step

KINDS = ("probe", "kernel", "host", "guest", "qemu")
"""What can be built by name, in an order in which each has what it needs."""

BY_NAME_ONLY = ("ap-host", ARM)
"""What is built only when it is named: other machines', and large."""


LEFTOVERS = ("apt", CCACHE)
"""Below the cache, beside the images: what was downloaded, and what was compiled."""


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image in the store, for people and for JSON."""

    name: str
    key: str
    size: int
    """Bytes."""
    built: float
    """Seconds since the epoch, 0 if the record is damaged."""
    seconds: float
    """How long the build took."""
    packages: int
    """How many Debian packages are in it."""
    path: str


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """One image that `build` made or found."""

    name: str
    label: str
    """Which one: ``debian:trixie 6.12.107``."""
    path: Path
    size: int
    seconds: float
    """How long it took now."""

    def line(self) -> str:
        """Return it as one line for people."""
        return (
            f"{self.name:<9} {human_size(self.size):>9} {self.seconds:7.2f} s  "
            f"{self.label:<30} {self.path}"
        )


def rows(store: Store | None = None) -> list[ImageRow]:
    """Return every image of the store."""
    return [_row(artifact) for artifact in (store or Store()).entries()]


def as_json(found: Sequence[ImageRow]) -> list[dict[str, object]]:
    """Return rows for `json`."""
    return [asdict(row) for row in found]


def as_lines(found: Sequence[ImageRow], *, now: float | None = None) -> list[str]:
    """Return rows as lines in columns, for people and for grep."""
    now = time.time() if now is None else now
    lines = [f"{'name':<14} {'key':<20} {'size':>9}  {'age':>7}  packages  path"]
    for row in found:
        age = human_age(now - row.built) if row.built else "damaged"
        lines.append(
            f"{row.name:<14} {row.key:<20} {human_size(row.size):>9}  {age:>7}  "
            f"{row.packages or '-':>8}  {row.path}"
        )
    return lines


def build(
    kinds: Sequence[str] = (),
    *,
    kernel: str = "",
    qemu: str = "debian:trixie",
    refresh: bool = False,
    progress: Progress | None = None,
    store: Store | None = None,
) -> Iterator[BuiltImage]:
    """Make what is not there yet; yields each image when it is ready.

    :param kinds: of `KINDS` and `BY_NAME_ONLY`; none are all of `KINDS`.
    :param kernel: see `KernelSource.parse`; empty is the recipe's.
    :param qemu: see `QemuBuild.resolve`.
    :param refresh: look for newer packages.
    :raise ConfigError: no such image.
    :raise ImageError: one could not be made.
    """
    known = (*KINDS, *BY_NAME_ONLY)
    unknown = [kind for kind in kinds if kind not in known]
    if unknown:
        raise ConfigError(
            f"no image is called {', '.join(unknown)}", hint=f"there are {', '.join(known)}"
        )
    images = Images(store, progress=progress, refresh=refresh)
    source = KernelSource.parse(kernel) if kernel else None
    found_kernel: KernelImage | None = None
    for kind in [kind for kind in KINDS if not kinds or kind in kinds]:
        began = time.monotonic()
        if kind in ("kernel", "guest"):
            found_kernel = found_kernel or images.kernel(source)
        label, path = _build_one(images, kind, found_kernel, qemu)
        yield BuiltImage(kind, label, path, path.stat().st_size, time.monotonic() - began)
    if ARM in kinds:
        began = time.monotonic()
        arm = make_arm_qemu(qemu, images.workshop)
        disk, seconds = arm.pack().erofs, time.monotonic() - began
        yield BuiltImage(ARM, f"{arm.label} {arm.version}", disk, disk.stat().st_size, seconds)
    if "ap-host" in kinds:
        yield from _build_ap_host(images, source)


def verify(names: Sequence[str] = (), store: Store | None = None) -> list[tuple[ImageRow, str]]:
    """Compute every hash of the named images (all without names); pairs of row and problem.

    The problem is empty for an image that is whole. Nothing is changed: a damaged image is
    made again when it is next needed.
    """
    store = store or Store()
    found = []
    for artifact in select(store, names):
        row = _row(artifact)
        with step("check %s %s (%s)", row.name, row.key, human_size(row.size)):
            found.append((row, "; ".join(store.check(artifact, full=True))))
    return found


def remove(
    names: Sequence[str] = (), *, everything: bool = False, store: Store | None = None
) -> list[ImageRow]:
    """Remove the named images and return what they were.

    :param everything: remove all images, and downloaded packages too.
    :raise ConfigError: no names, or one that names nothing.
    """
    if not names and not everything:
        raise ConfigError(
            "nothing was named", hint="trapline images rm NAME… or trapline images rm --all"
        )
    store = store or Store()
    doomed = select(store, () if everything else names)
    removed = [_row(artifact) for artifact in doomed]
    for artifact in doomed:
        store.remove(artifact)
    if everything:
        for leftovers in (store.root / "damaged", *map(paths.cache_dir().joinpath, LEFTOVERS)):
            remove_tree(leftovers)
    return removed


def select(
    store: Store,
    names: Sequence[str],
    *,
    what: str = "image",
    lister: str = "trapline images list",
) -> list[Artifact]:
    """Return the images that *names* mean: ``kernel``, a key's beginning, ``kernel/330a``.

    :param what: what is in the store, for people.
    :param lister: the command that shows it.

    :raise ConfigError: one of them means nothing.
    """
    entries = store.entries()
    chosen: dict[Artifact, None] = {}
    for name in names:
        kind, slash, key = name.partition("/")
        hits = [
            one
            for one in entries
            if (one.name == kind and one.key.startswith(key))
            or (not slash and len(kind) >= 4 and one.key.startswith(kind))
        ]
        if not hits:
            there = sorted({one.name for one in entries})
            raise ConfigError(
                f"no {what} is called {name}",
                seen=f"there are {', '.join(there)}" if there else "there are none",
                hint=lister,
            )
        chosen |= dict.fromkeys(hits)
    return list(chosen) if names else entries


def human_size(size: int) -> str:
    """Return bytes as ``14.4 MB``."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def human_age(seconds: float) -> str:
    """Return an age as ``3 min``, ``5 h``, ``12 d``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _build_one(
    images: Images, kind: str, kernel: KernelImage | None, qemu: str
) -> tuple[str, Path]:
    match kind:
        case "probe":
            return "static program", images.probe()
        case "host":
            return "root of virtual hosts", images.host().root_erofs
        case "qemu":
            build = QemuBuild.resolve(qemu, images.workshop)
            return f"{build.label} {build.version}", build.pack().erofs
    if kernel is None:
        raise ConfigError(f"no image is called {kind}")
    if kind == "guest":
        return f"with {kernel.release}", images.guest(kernel).erofs
    return f"{kernel.label} {kernel.release}", kernel.vmlinuz


def _build_ap_host(images: Images, source: KernelSource | None) -> Iterator[BuiltImage]:
    began = time.monotonic()
    image = images.ap_host(source)
    seconds = time.monotonic() - began
    parts = [
        ("ap-kernel", f"{image.label} {image.release}", image.vmlinuz),
        ("ap-qemu", f"inside: {image.inner_qemu.label} {image.inner_qemu.version}",
         image.inner_qemu.erofs),
        ("qemu", f"outside: {image.qemu.label} {image.qemu.version}", image.qemu.binary),
    ]  # fmt: skip
    for name, label, path in parts:
        yield BuiltImage(name, label, path, path.stat().st_size, 0.0)
    if image.modules is not None:
        for name in image.modules.sets():
            path = image.modules.files(name)["vfio_ap"]
            yield BuiltImage("vfio_ap", f"set {name}", path, path.stat().st_size, 0.0)
    label = f"with {image.release}"
    yield BuiltImage("ap-host", label, image.initrd, image.initrd.stat().st_size, seconds)


def _row(artifact: Artifact) -> ImageRow:
    path = str(artifact.dir)
    try:
        record = artifact.manifest()
    except ImageError:
        return ImageRow(artifact.name, artifact.key, 0, 0, 0, 0, path)
    return ImageRow(
        artifact.name, artifact.key, record.size, record.built, record.seconds,
        len(record.packages), path,
    )  # fmt: skip

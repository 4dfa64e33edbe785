"""QEMU builds: the machine's own, one of yours, or any Debian suite's, side by side."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.errors import ConfigError, LaunchFailed, MissingPackage
from harness.images.cache import hash_file, key_of
from harness.images.debian import Package, unpack
from harness.images.libraries import LIBRARIES, LOADER, is_dynamic, needed_libraries
from harness.images.pack import make_erofs
from harness.images.qemu_features import QemuFeatures, add_fact, ask, read_facts
from harness.images.qemu_firmware import obtain_firmware
from harness.images.qemu_mended import MENDED, obtain_mended
from harness.images.qemu_mutant import MUTANT, SOURCE, obtain_built
from harness.images.qemu_pack import PackedQemu, Parts, Start, collect, start_of
from harness.images.recipe import QemuRecipe, load_recipe
from harness.images.workshop import Workshop
from harness.model.version import QemuVersion

__all__ = ["PackedQemu", "QemuBuild", "QemuFeatures"]

log = logging.getLogger(__name__)


COMPILED = (SOURCE, MUTANT, MENDED)
"""How the name of a build begins that is compiled here, for x86-64."""


@dataclass(frozen=True, slots=True)
class QemuBuild:
    """One QEMU that can be started on this machine. Make one with `QemuBuild.resolve`."""

    label: str
    """How it was asked for: ``system``, ``debian:trixie``, or the path."""
    argv_prefix: tuple[str, ...]
    """The binary, with its loader and data directories."""
    env: Mapping[str, str]
    """Variables it needs beside ours."""
    data_dirs: tuple[Path, ...]
    """Where it finds firmware, as far as we know."""
    identity: str
    """The same for the same bits: hash of the binary or of the packages it is made of."""
    version: QemuVersion
    features: QemuFeatures = field(repr=False, compare=False)
    workshop: Workshop = field(repr=False, compare=False)
    binary: Path = Path()
    packed: PackedQemu | None = field(default=None, repr=False)
    recipe: str = "qemu"
    """Name of the recipe that says how it is packed."""

    @classmethod
    def resolve(
        cls, spec: str, workshop: Workshop | None = None, recipe_name: str = "qemu"
    ) -> QemuBuild:
        """Return the build that *spec* names, after asking it for its version.

        :param spec: ``system``, ``debian:SUITE``, ``source:SUITE`` (built here from Debian's
            source), ``mutant:NAME`` (the same, broken on purpose), ``mended:NAME`` (the same
            without a known defect), or the path of a binary or of a build directory that has one.
        :param recipe_name: ``qemu``, or ``qemu-s390x`` for a QEMU of that target.
        :raise ConfigError: there is no such file, it cannot be executed, it is no QEMU.
        :raise LaunchFailed: it dies at start; carries what it said.
        :raise ImageError: a Debian build cannot be fetched.
        """
        workshop = workshop or Workshop()
        recipe = load_recipe(QemuRecipe, recipe_name)
        make = _local
        if spec.startswith("debian:"):
            make = _debian
        elif spec.startswith(COMPILED):
            make = _built
        return replace(make(spec, workshop, recipe), recipe=recipe_name)

    def pack(self) -> PackedQemu:
        """Return the build as a disk that runs in any virtual host.

        :raise ConfigError: it is a script, not a program.
        :raise ImageError: a library or firmware cannot be found.
        """
        return self.packed or _pack_local(self)


def _debian(spec: str, workshop: Workshop, recipe: QemuRecipe) -> QemuBuild:
    suite = spec.removeprefix("debian:")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", suite):
        raise ConfigError(
            f"QEMU {spec!r}: no such suite", hint="for example debian:trixie, debian:sid"
        )
    wanted = recipe.debian.model_copy(update={"suite": suite})

    def build(into: Path, packages: Sequence[Package]) -> None:
        unpacked = into / "unpacked"
        unpack(packages, unpacked)
        libraries = unpacked / LIBRARIES
        more = [libraries / "libgcc_s.so.1"]  # opened when a thread is cancelled
        parts = Parts(
            binary=unpacked / "usr/bin" / recipe.program,
            loader=libraries / LOADER,
            library_dirs=(libraries,),
            data_dirs=tuple(unpacked / "usr" / d for d in ("share/qemu", "share/seabios")),
            module_dir=libraries / "qemu",
            own_libraries=tuple(path for path in more if path.exists()),
        )
        _make(parts, recipe, into)
        shutil.rmtree(unpacked)

    artifact = workshop.obtain("qemu", {"recipe": _packing(recipe)}, build, wanted)
    return _of_packed(spec, PackedQemu(artifact, recipe.program), workshop)


def _built(spec: str, workshop: Workshop, recipe: QemuRecipe) -> QemuBuild:
    obtain = obtain_mended if spec.startswith(MENDED) else obtain_built
    return _of_packed(spec, obtain(spec, workshop), workshop)


def _of_packed(spec: str, packed: PackedQemu, workshop: Workshop) -> QemuBuild:
    return _finish(
        spec, start_of(packed.tree, packed.program), packed.artifact.key, workshop,
        data_dirs=(packed.tree / "share/qemu",),
        binary=packed.tree / "bin" / packed.program, packed=packed,
    )  # fmt: skip


def _local(spec: str, workshop: Workshop, recipe: QemuRecipe) -> QemuBuild:
    binary = _find_binary(spec, recipe.program, recipe.debian.packages[0])
    identity = _identity(binary, workshop)
    plain = _finish(spec, Start((str(binary),), {}), identity, workshop, binary=binary)
    data_dirs = _data_dirs(plain)
    if any((directory / recipe.essential).is_file() for directory in data_dirs):
        # It finds them by itself; only pc-bios of a source tree has to be pointed at.
        words = [word for d in data_dirs if d.name == "pc-bios" for word in ("-L", str(d))]
    else:
        directory = obtain_firmware(workshop, recipe)
        log.info("QEMU %s has no %s, it gets Debian's", spec, recipe.essential)
        data_dirs = (*data_dirs, directory)
        words = [word for d in data_dirs for word in ("-L", str(d))]
    start = Start((str(binary), *words), {})
    return _finish(spec, start, identity, workshop, data_dirs=data_dirs, binary=binary)


def _finish(
    label: str,
    start: Start,
    identity: str,
    workshop: Workshop,
    *,
    binary: Path,
    data_dirs: tuple[Path, ...] = (),
    packed: PackedQemu | None = None,
) -> QemuBuild:
    kept = workshop.store.root / "facts" / f"qemu-{identity}.json"
    features = QemuFeatures(start.argv_prefix, start.env, label, kept)
    version = _version(start, label, kept)
    return QemuBuild(
        label, start.argv_prefix, start.env, data_dirs, identity, version, features, workshop,
        binary, packed,
    )  # fmt: skip


def _find_binary(spec: str, program: str, package: str) -> Path:
    if spec == "system":
        found = shutil.which(program)
        if found is None:
            raise MissingPackage(
                f"this machine has no {program}",
                [package],
                hint=f"apt-get install --no-install-recommends {package}, or name another "
                "build: debian:SUITE or the path of a binary",
            )
        return Path(found)
    path = Path(spec).expanduser().absolute()
    if path.is_dir():
        inside = [path / program, path / "build" / program, path / "bin" / program]
        path = next((p for p in inside if p.is_file()), path)
    hint = "give system, debian:SUITE, source:SUITE, a binary, or a build directory"
    if not path.exists():
        raise ConfigError(f"QEMU {spec}: there is no such file", hint=hint)
    if path.is_dir():
        raise ConfigError(f"QEMU {spec}: this directory has no {program}", hint=hint)
    if not os.access(path, os.X_OK):
        raise ConfigError(f"QEMU {spec}: it cannot be executed", hint=f"chmod +x {path}")
    return path


def _identity(binary: Path, workshop: Workshop) -> str:
    """Return the hash of the binary, computed again only when its size or time changes."""
    status = binary.stat()
    glimpse = key_of("binary", str(binary), str(status.st_size), str(status.st_mtime_ns))
    known = workshop.store.recall(glimpse)
    if known is None:
        known = hash_file(binary)[:20]
        workshop.store.remember(glimpse, known)
    return known


def _version(start: Start, label: str, kept: Path) -> QemuVersion:
    known = read_facts(kept).get("version")
    if isinstance(known, str):
        return QemuVersion.parse(known)
    done = ask(start.argv_prefix, start.env, ["-version"], label)
    if done.returncode != 0:
        raise LaunchFailed(
            f"QEMU {label} ended with status {done.returncode} when asked for its version",
            exit_status=done.returncode,
            stderr=done.stderr or done.stdout,
            hint="give the path of a qemu-system-x86_64 that starts",
        )
    first = done.stdout.strip().partition("\n")[0]
    try:
        if not first.startswith("QEMU emulator version"):
            raise ValueError("it does not say that it is a QEMU emulator")
        version = QemuVersion.parse(first)
    except ValueError as error:
        raise ConfigError(
            f"{label} is not QEMU",
            seen=f"{error}; -version printed: {done.stdout[:200]!r}",
            hint="give the path of a qemu-system-x86_64",
        ) from error
    add_fact(kept, "version", first)
    return version


def _data_dirs(build: QemuBuild) -> tuple[Path, ...]:
    """Return the data directories that are there: what ``-L help`` prints, and pc-bios.

    A build tree finds its firmware below ``qemu-bundle`` (meson, since QEMU 7.0); an older one
    needs ``-L pc-bios``.
    """
    said = ask(build.argv_prefix, build.env, ["-L", "help"], build.label)
    found = [Path(line.strip()) for line in said.stdout.splitlines() if line.startswith("/")]
    beside = build.binary.resolve().parent
    found += [beside / "pc-bios", beside.parent / "pc-bios"]
    return tuple(dict.fromkeys(path for path in found if path.is_dir()))


def _pack_local(build: QemuBuild) -> PackedQemu:
    recipe = load_recipe(QemuRecipe, build.recipe)
    if not is_dynamic(build.binary):
        raise ConfigError(
            f"QEMU {build.label} cannot be carried into a virtual host",
            seen=f"{build.binary} is not a dynamically linked program for this machine",
            hint="give the QEMU binary itself, not a script that starts it",
        )
    loader = _system_loader()
    libraries = needed_libraries(loader, [], build.binary)
    parts = Parts(build.binary, loader, (), build.data_dirs, _module_dir(build.binary))
    fingerprint = [
        f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}"
        for path in [*libraries, *_firmware_files(build, recipe)]
    ]
    inputs = {
        "binary": build.identity,
        "recipe": _packing(recipe),
        "libraries and firmware": " ".join(sorted(fingerprint)),
        "modules": str(parts.module_dir),
    }

    def make(into: Path, _: Sequence[Package]) -> None:
        _make(parts, recipe, into)

    return PackedQemu(build.workshop.obtain("qemu", inputs, make), recipe.program)


def _make(parts: Parts, recipe: QemuRecipe, into: Path) -> None:
    collect(parts, recipe, into / "tree")
    make_erofs(into / "tree", into / "qemu.erofs")


def _packing(recipe: QemuRecipe) -> str:
    return recipe.model_dump_json(include={"program", "leave_out", "firmware", "essential"})


def _firmware_files(build: QemuBuild, recipe: QemuRecipe) -> list[Path]:
    return [p for d in build.data_dirs for pattern in recipe.firmware for p in d.glob(pattern)]


def _system_loader() -> Path:
    """Return this machine's dynamic loader (the path is fixed by the x86-64 ABI)."""
    return Path("/lib64") / LOADER


def _module_dir(binary: Path) -> Path | None:
    """Return where a build has its loadable modules, None if it has none."""
    real = binary.resolve()
    prefix = real.parent.parent
    places = [
        *real.parent.glob("qemu-bundle/**/lib*/qemu"),
        *real.parent.glob("qemu-bundle/**/lib/*/qemu"),
        prefix / "lib/x86_64-linux-gnu/qemu",
        prefix / "lib64/qemu",
        prefix / "lib/qemu",
    ]
    return next((place for place in places if any(place.glob("*.so"))), None)

"""Build mdev.ko and vfio_ap.ko (and a set for IOMMUFD) for a Debian kernel that has none.

The source is the distribution's, byte for byte. It is compiled as modules are outside of a
kernel's tree: against the distribution's header package, so with its configuration, its symbol
checksums, its kbuild, by the compiler it names. What comes out is compared with the modules
that came with the kernel before anybody may load it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ImageError
from harness.images.ap_recipe import ApHostRecipe, Conditional, LinkedFile, ModuleSet
from harness.images.build_root import WORK, BuildRoot, obtain_build_root
from harness.images.debian import Package, unpack
from harness.images.kernel import BuiltKernel
from harness.images.kernel_packages import KernelPackages, explain, find_kernel_packages
from harness.images.kernel_source import KernelSource
from harness.images.module_abi import ModuleAbi, differences
from harness.images.modules import ModuleTree
from harness.images.recipe import PackageSet
from harness.images.tools import run_tool
from harness.images.workshop import Workshop
from harness.step import step

ARCHITECTURE = "s390x"
COMMON = "common"
"""Directory of the modules that belong to all sets."""
_OURS = ("vfio_ap", "mdev")


@dataclass(frozen=True, slots=True)
class ApModules:
    """Modules in the store."""

    key: str
    root: Path

    def sets(self) -> list[str]:
        """Return the names of the sets."""
        return sorted(
            path.name for path in self.root.iterdir() if path.is_dir() and path.name != COMMON
        )

    def files(self, name: str) -> dict[str, Path]:
        """Return the modules of the set *name* (``group``, ``cdev``) by their names."""
        return {
            path.stem: path
            for part in (COMMON, name)
            for path in sorted((self.root / part).glob("*.ko"))
        }


def obtain_ap_modules(
    workshop: Workshop, kernel: BuiltKernel, source: KernelSource, recipe: ApHostRecipe
) -> ApModules | None:
    """Return modules that *kernel* lacks; None if it has vfio_ap itself.

    :raise SourceGone: the mirror no longer has the source of this very kernel.
    :raise ImageError: they cannot be built, or would not fit.
    """
    tree = kernel.module_tree()
    if tree is not None and not tree.select(_OURS).absent:
        return None
    if source.bzimage is not None or tree is None:
        raise ImageError(
            f"kernel {kernel.label} has no vfio_ap",
            seen="modules are built for Debian's kernels only",
            hint="build it with CONFIG_VFIO_AP=m and give its modules: --kernel "
            "arch/s390/boot/bzImage:MODULES_DIR",
        )
    version = _package_version(workshop, kernel)
    packages: list[KernelPackages] = []

    def wanted() -> Sequence[PackageSet]:
        with step("look for the source of kernel %s", version):
            found = find_kernel_packages(
                workshop, source.suite, ARCHITECTURE, kernel.release, version
            )
        packages.append(found)
        return found.sets(source.suite, ARCHITECTURE)

    def build(into: Path, fetched: Sequence[Package]) -> None:
        tools = obtain_build_root(workshop, compiler_tools(recipe, packages[0], source.suite))
        job = _Job(into, kernel, tree, tools, recipe)
        job.unpack(fetched)
        job.check_configuration()
        job.build()
        job.finish()

    inputs = {
        "kernel": kernel.key,
        "sets": recipe.model_dump_json(include={"sets", "also"}),
        "tools": recipe.tools.as_text(),
    }
    try:
        artifact = workshop.obtain("ap-modules", inputs, build, wanted)
    except ImageError as error:
        raise explain(workshop, error, kernel.release, version, source.suite) from error
    return ApModules(artifact.key, artifact.dir)


def compiler_tools(recipe: ApHostRecipe, packages: KernelPackages, suite: str) -> PackageSet:
    """Return the tools of the suite that a kernel is of, with the kernel's own compiler."""
    rest = tuple(one for one in recipe.tools.packages if not re.fullmatch(r"gcc-\d+-.*", one))
    return recipe.tools.model_copy(update={"suite": suite, "packages": (packages.compiler, *rest)})


def _package_version(workshop: Workshop, kernel: BuiltKernel) -> str:
    artifact = workshop.store.find("ap-kernel", kernel.key)
    versions = artifact.manifest().packages if artifact else {}
    name = f"linux-image-{kernel.release}"
    for found, version in versions.items():
        if found.partition(":")[0] in (name, f"{name}-unsigned"):
            return version
    raise ImageError(
        f"kernel {kernel.release} does not say which package it came in",
        seen=", ".join(f"{one} {version}" for one, version in versions.items()),
    )


class _Job:
    """One build: a directory with everything unpacked, then the sets beside each other."""

    def __init__(
        self,
        into: Path,
        kernel: BuiltKernel,
        tree: ModuleTree,
        tools: BuildRoot,
        recipe: ApHostRecipe,
    ) -> None:
        self.into = into
        self.kernel = kernel
        self.tree = tree
        self.tools = tools
        self.sets = recipe.sets
        self.also = recipe.also
        self.common: ModuleSet | None = None
        self.work = into / "work"

    @property
    def headers(self) -> Path:
        """Return where the headers of the kernel are."""
        return self.work / f"usr/src/linux-headers-{self.kernel.release}"

    def unpack(self, fetched: Sequence[Package]) -> None:
        """Unpack headers, kbuild, and of the source what the sets are made of."""
        sources = [one for one in fetched if one.name.startswith("linux-source-")]
        unpack([one for one in fetched if one not in sources], self.work)
        # It names the common headers by where they would be installed.
        makefile = self.headers / "Makefile"
        makefile.write_text(makefile.read_text().replace("/usr/src/", f"{WORK}/usr/src/"))
        for one in sources:
            where = self.into / "source"
            unpack([one], where)
            with step("unpack the source of %s %s", one.name, one.version):
                self._extract(next(where.glob("usr/src/*.tar.xz")))
            shutil.rmtree(where)
        # Makefiles in there are included from where the root of the kernel's source would be.
        common = next(self.headers.parent.glob("linux-headers-*-common"))
        for name in {name for one in self.also for name in one.needs}:
            shutil.copytree(self.work / "linux" / name, common / name, dirs_exist_ok=True)

    def _extract(self, archive: Path) -> None:
        wanted = {"drivers/iommu/*.h"}
        for one in self.sets:
            wanted |= {*one.objects, *(linked.source for linked in one.link.values())}
        wanted |= {name for one in self.also for name in (one.directory, *one.needs)}
        # tar takes a name within another one for one that is not there.
        wanted = {one for one in wanted if not any(one.startswith(f"{o}/") for o in wanted)}
        (self.work / "linux").mkdir()
        run_tool(
            [
                "tar", "-x", "-I", "xz -T0", "-f", archive, "-C", self.work / "linux",
                "--strip-components=1", "--no-same-owner", "--wildcards",
                *sorted(f"linux-source-*/{name}" for name in wanted),
            ],
            purpose="unpack the source of the kernel",
        )  # fmt: skip

    def check_configuration(self) -> None:
        """Refuse headers of another configuration than the kernel's."""
        if self.kernel.config is None:
            return
        theirs = _settings(self.kernel.config.read_text())
        ours = _settings((self.headers / ".config").read_text())
        # Debian leaves lines about its own build out of the file beside the kernel.
        changed = [
            f"{theirs[name]}, in the headers: {ours.get(name, 'not there')}"
            for name in theirs
            if ours.get(name) != theirs[name]
        ]
        if changed:
            raise ImageError(
                f"the headers of {self.kernel.release} have another configuration than the kernel",
                seen="\n".join(changed[:20]),
            )

    def build(self) -> None:
        """Compile what all sets need, then the sets beside each other."""
        wanted = [one for one in self.also if self._is_wanted(one)]
        if wanted:
            self.common = ModuleSet(
                name=COMMON,
                config={name: value for one in wanted for name, value in one.config.items()},
                objects={one.directory: one.modules for one in wanted},
            )
            names = ", ".join(name for one in wanted for name in one.modules)
            with step("compile %s, which this kernel has without a part", names):
                self._build_set(self.common, [n for one in wanted for n in one.needs])
        with (
            step("compile the modules of %s", " and of ".join(one.name for one in self.sets)),
            ThreadPoolExecutor(2) as pool,
        ):
            for _ in pool.map(self._build_set, self.sets):
                pass

    def _is_wanted(self, one: Conditional) -> bool:
        sources = (self.work / "linux" / one.directory).glob("*.[ch]")
        return any(one.mentions in path.read_text() for path in sources)

    def _build_set(self, one: ModuleSet, needs: Sequence[str] = ()) -> None:
        place, linux = self.work / one.name, self.work / "linux"
        for directory in (*one.objects, *needs):
            shutil.copytree(linux / directory, place / directory, dirs_exist_ok=True)
        for directory, names in one.objects.items():
            linked = one.link.get(directory)
            (place / directory / "Kbuild").write_text(_kbuild(names, linked))
            if linked is not None:
                shutil.copy(linux / linked.source, place / directory)
        for header in (linux / "drivers/iommu").glob("*.h"):
            (place / "drivers/iommu").mkdir(parents=True, exist_ok=True)
            shutil.copy(header, place / "drivers/iommu")
        (place / "Kbuild").write_text("".join(f"obj-m += {name}/\n" for name in one.objects))
        flags = [f"-D{name}{'_MODULE' if v == 'm' else ''}=1" for name, v in one.config.items()]
        headers = WORK / self.headers.relative_to(self.work)
        symbols = []
        if self.common is not None and one is not self.common:
            symbols = [f"KBUILD_EXTRA_SYMBOLS={WORK / COMMON / 'Module.symvers'}"]
        self.tools.run(
            [
                "make", "-j2", "-C", headers, f"M={WORK / one.name}",
                f"KCFLAGS={' '.join(flags)}",
                *(f"{name}={value}" for name, value in one.config.items()),
                *symbols,
                "modules",
            ],
            self.work,
            purpose=f"compile the modules of {one.name} for {self.kernel.release}",
        )  # fmt: skip
        (self.into / one.name).mkdir()
        built = sorted(place.rglob("*.ko"))
        missing = {n for names in one.objects.values() for n in names} - {p.stem for p in built}
        if missing:
            raise ImageError(f"no module {', '.join(sorted(missing))} came out of the build")
        inside = [WORK / path.relative_to(self.work) for path in built]
        self.tools.run(
            ["s390x-linux-gnu-strip", "-g", *inside], self.work, purpose="strip the modules"
        )
        for path in built:
            shutil.copyfile(path, self.into / one.name / path.name)

    def finish(self) -> None:
        """Compare every module with the kernel's own, write the record, clean up."""
        theirs = [
            ModuleAbi.read(self.tree.image(name), name)
            for name in self.tree.select(["vfio", "vfio_iommu_type1", "kvm", "zcrypt"]).modules
        ]
        problems = []
        for one in (*self.sets, *([self.common] if self.common else ())):
            built = [
                ModuleAbi.read(path.read_bytes(), path.stem)
                for path in sorted((self.into / one.name).glob("*.ko"))
            ]
            names = [module.name for module in built]
            for module in built:
                problems += [f"{one.name}/{why}" for why in differences(module, theirs, names)]
        if problems:
            raise ImageError(
                f"modules built for {self.kernel.release} do not fit it and must not be loaded",
                seen="\n".join(problems[:20]),
                hint="this is a mistake of the build; trapline images build ap-host --refresh "
                "begins anew",
            )
        record = {
            "kernel": self.kernel.release,
            "vermagic": theirs[0].vermagic,
            "struct module": theirs[0].struct_size,
            "configuration": "that of the distribution's headers, which is the kernel's",
            "changed": {one.name: one.config for one in self.sets},
            "built for all sets": sorted(self.common.objects) if self.common else [],
            "compiler": self.tools.key,
        }
        (self.into / "record.json").write_text(json.dumps(record, indent=1) + "\n")
        shutil.rmtree(self.work)


def _kbuild(names: Sequence[str], linked: LinkedFile | None) -> str:
    """Return a Kbuild that takes the kernel's own Makefile and builds only what is asked for."""
    lines = ["include $(src)/Makefile", "obj-y :="]
    lines += [f"obj-m := {' '.join(f'{name}.o' for name in names)}"]
    if linked is not None:
        stem = Path(linked.source).stem
        lines += [f"{linked.object}-y += {stem}.o", f"CFLAGS_{stem}.o := -D__DISABLE_EXPORTS"]
    return "\n".join(lines) + "\n"


def _settings(config: str) -> dict[str, str]:
    """Return the lines of a ``.config`` by name: ``CONFIG_X=y``, ``# CONFIG_X is not set``."""
    lines = (re.match(r"(?:# )?(CONFIG_\w+)[= ]", line) for line in config.splitlines())
    return {match[1]: match.string for match in lines if match}

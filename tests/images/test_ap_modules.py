"""Modules for an s390x kernel, with a stand-in for what runs in the tree of compilers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ImageError
from harness.images.ap_host import kernel_with_modules
from harness.images.ap_modules import obtain_ap_modules
from harness.images.ap_recipe import ApHostRecipe
from harness.images.build_root import WORK, BuildRoot
from harness.images.kernel import BuiltKernel, obtain_kernel
from harness.images.kernel_packages import SourceGone, find_kernel_packages
from harness.images.kernel_source import KernelSource
from harness.images.recipe import load_recipe
from harness.images.workshop import Workshop

ABI = "6.12.9+deb13"
RELEASE = f"{ABI}-s390x"
VERSION = "6.12.9-1"
VERMAGIC = f"{RELEASE} SMP"
CONFIG = "CONFIG_KVM=m\n# CONFIG_VFIO_AP is not set\n"
SUITE = KernelSource(suite="trixie")
MODULES = ("zcrypt", "zcrypt_cex4", "kvm", "vfio", "vfio_iommu_type1", "virtio_blk", "erofs")
CRCS = {"module_layout": 7}

WHOLE = load_recipe(ApHostRecipe, "ap-host")
RECIPE = WHOLE.model_copy(
    # One of the tools will do, as nothing of them is run.
    update={"tools": WHOLE.tools.model_copy(update={"packages": WHOLE.tools.packages[:1]})}
)


def s390x_kernel() -> bytes:
    image = bytearray(0x11000)
    image[0x10008:0x1000E] = b"S390EP"
    image[0x10428:0x10430] = (0x10800).to_bytes(8, "big")
    text = f"{RELEASE} (x@y) #1 SMP\0".encode()
    image[0x10800 : 0x10800 + len(text)] = text
    return bytes(image)


def source_tree(scratch: Path, version: str, *, kvm: str = "") -> bytes:
    """Return the archive of the kernel's source, as far as we use it."""
    root = scratch / f"linux-source-{version}"
    for name in (
        "drivers/vfio/vfio.c", "drivers/vfio/mdev/mdev.c", "drivers/s390/crypto/vfio_ap.c",
        "drivers/iommu/iommufd/iommufd.c", "drivers/iommu/iommu-priv.h", "lib/interval_tree.c",
        "virt/kvm/kvm_main.c", "drivers/net/not_wanted.c",
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"/* {name} */\n")
    (root / "arch/s390/kvm").mkdir(parents=True)
    (root / "arch/s390/kvm/priv.c").write_text(f"/* {kvm} */\n")
    archive = scratch / "source.tar.xz"
    subprocess.run(["tar", "-cJf", archive, "-C", scratch, root.name], check=True)
    return archive.read_bytes()


@pytest.fixture
def stocked(archive: Any, elves: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The archive has an s390x kernel and all that its modules are built from."""
    stock_kernel(archive, VERSION, elves)
    stock_sources(archive, VERSION, tmp_path)
    archive.add("gcc-14-s390x-linux-gnu")
    monkeypatch.setenv("TRAPLINE_MIRROR", archive.mirror.uri)
    monkeypatch.setenv("TRAPLINE_KEYRING", "none")
    return archive


def stock_kernel(archive: Any, version: str, elves: Any) -> None:
    """Put a kernel into the archive."""
    kernel = {f"usr/lib/modules/{RELEASE}/kernel/{name}.ko": elves.module(
        name, vermagic=VERMAGIC, versions=CRCS,
        depends={"zcrypt_cex4": "zcrypt", "vfio_iommu_type1": "vfio"}.get(name, ""),
    ) for name in MODULES}  # fmt: skip
    kernel[f"boot/vmlinuz-{RELEASE}"] = s390x_kernel()
    kernel[f"boot/config-{RELEASE}"] = CONFIG.encode()
    archive.add(f"linux-image-{RELEASE}", version, files=kernel, architecture="s390x")
    archive.add(
        "linux-image-s390x", version, depends=f"linux-image-{RELEASE}", architecture="s390x"
    )


def stock_sources(
    archive: Any, version: str, scratch: Path, *, kvm: str = "", config: str = CONFIG
) -> None:
    """Put headers, kbuild, compiler and source of a kernel into the archive."""
    common, kbuild = f"linux-headers-{ABI}-common", f"linux-kbuild-{ABI}"
    src = f"usr/src/linux-headers-{RELEASE}"
    archive.add(
        f"linux-headers-{RELEASE}",
        version,
        depends=f"linux-base, {common} (= {version}), {kbuild}, gcc-14",
        files={f"{src}/.config": config, f"{src}/Makefile": f"include /usr/src/{common}/Makefile"},
        architecture="s390x",
    )
    archive.add(
        common, version, files={f"usr/src/{common}/Makefile": "all:\n"}, architecture="all"
    )
    for architecture in ("amd64", "s390x"):
        archive.add(kbuild, version, depends="pahole", architecture=architecture)
        archive.add("pahole", architecture=architecture)
    archive.add("gcc-14", architecture="s390x")
    scratch = scratch / f"source-{version}"
    scratch.mkdir(parents=True)
    data = source_tree(scratch, version, kvm=kvm)
    files = {"usr/src/linux-source-6.12.tar.xz": data}
    archive.add("linux-source-6.12", version, files=files, architecture="all")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, elves: Any) -> list[list[str]]:
    """What is run in the tree of compilers is kept; make leaves the modules of the Kbuilds."""
    seen: list[list[str]] = []

    def run(self: BuildRoot, argv: Sequence[Any], work: Path, *, purpose: str) -> str:
        words = [os.fspath(word) for word in argv]
        seen.append(words)
        if words[0] == "make":
            (place,) = [
                work / Path(word[2:]).relative_to(WORK) for word in words if word[:2] == "M="
            ]
            for kbuild in place.rglob("Kbuild"):
                lines = dict(line.split(" := ", 1) for line in kbuild.read_text().splitlines()
                             if " := " in line)  # fmt: skip
                for name in lines.get("obj-m", "").split():
                    stem = name.removesuffix(".o")
                    image = elves.module(
                        stem,
                        vermagic=os.environ.get("FAKE_VERMAGIC", VERMAGIC),
                        versions=CRCS,
                        depends="vfio" if stem == "vfio_ap" else "",
                    )
                    (kbuild.parent / f"{stem}.ko").write_bytes(image)
            (place / "Module.symvers").touch()
        return ""

    monkeypatch.setattr(BuildRoot, "run", run)
    return seen


def built(workshop: Workshop) -> tuple[BuiltKernel, Any]:
    kernel = obtain_kernel(workshop, SUITE, name="ap-kernel")
    return kernel, obtain_ap_modules(workshop, kernel, SUITE, RECIPE)


def test_the_kernel_of_a_mainframe_is_one(stocked: Any) -> None:
    kernel = obtain_kernel(Workshop(), SUITE, name="ap-kernel")
    tree = kernel.module_tree()

    assert kernel.release == RELEASE
    assert tree is not None
    assert tree.select(["vfio_iommu_type1", "vfio_ap"]).absent == ("vfio_ap",)


def test_the_packages_are_those_of_the_kernels_version(stocked: Any) -> None:
    found = find_kernel_packages(Workshop(), "trixie", "s390x", RELEASE, VERSION)

    assert found.headers == (f"linux-headers-{ABI}-common", f"linux-headers-{RELEASE}")
    assert found.compiler == "gcc-14-s390x-linux-gnu"
    target, machine = found.sets("trixie", "s390x")
    assert target.alone == tuple(f"{name}={VERSION}" for name in found.headers)
    assert machine.alone == (f"linux-kbuild-{ABI}={VERSION}", f"linux-source-6.12={VERSION}")


def test_the_cross_compiler_itself_may_be_what_the_headers_need(stocked: Any) -> None:
    stocked.add("gcc-16-s390x-linux-gnu", architecture="s390x")
    stocked.add(
        f"linux-headers-{RELEASE}", "7",
        depends=f"linux-kbuild-{ABI}, gcc-16-s390x-linux-gnu",
        architecture="s390x",
    )  # fmt: skip

    found = find_kernel_packages(Workshop(), "trixie", "s390x", RELEASE, "7")

    assert found.compiler == "gcc-16-s390x-linux-gnu"


def test_both_sets_are_built_from_the_kernels_own_makefiles(
    stocked: Any, ran: list[list[str]]
) -> None:
    _, modules = built(Workshop())

    assert modules.sets() == ["cdev", "group"]
    assert sorted(modules.files("group")) == ["mdev", "vfio_ap"]
    assert sorted(modules.files("cdev")) == [
        "iommufd", "mdev", "vfio", "vfio_ap", "vfio_iommu_type1"
    ]  # fmt: skip
    (make,) = [words for words in ran if words[0] == "make" and f"M={WORK}/cdev" in words]
    assert f"{WORK}/usr/src/linux-headers-{RELEASE}" in make
    assert "CONFIG_IOMMUFD=m" in make
    assert any("-DCONFIG_IOMMUFD_MODULE=1" in word for word in make)


def test_the_record_names_versions_and_what_was_configured_otherwise(
    stocked: Any, ran: list[list[str]]
) -> None:
    workshop = Workshop()
    _, modules = built(workshop)
    artifact = workshop.store.find("ap-modules", modules.key)
    assert artifact is not None
    record = json.loads((modules.root / "record.json").read_text())

    assert artifact.manifest().packages == {
        f"linux-headers-{RELEASE}:s390x": VERSION,
        f"linux-headers-{ABI}-common": VERSION,
        f"linux-kbuild-{ABI}": VERSION,
        "linux-source-6.12": VERSION,
    }
    assert record["changed"]["group"] == {"CONFIG_VFIO_MDEV": "m", "CONFIG_VFIO_AP": "m"}
    assert record["vermagic"] == VERMAGIC


def test_what_was_built_needs_neither_mirror_nor_compiler_again(
    stocked: Any, ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = built(Workshop())
    monkeypatch.setenv("TRAPLINE_MIRROR", "file:/nosuch")
    ran.clear()

    _, second = built(Workshop())

    assert (second.key, ran) == (first.key, [])


def test_kvm_is_built_for_all_sets_where_the_source_asks_for_it(
    stocked: Any, ran: list[list[str]], tmp_path: Path
) -> None:
    stock_sources(stocked, VERSION, tmp_path / "again", kvm="IS_ENABLED(CONFIG_VFIO_AP)")

    _, modules = built(Workshop())

    assert "kvm" in modules.files("group")
    assert modules.files("group")["kvm"] == modules.files("cdev")["kvm"]
    made = [words for words in ran if words[0] == "make"]
    assert f"M={WORK}/common" in made[0]
    assert all(f"KBUILD_EXTRA_SYMBOLS={WORK}/common/Module.symvers" in w for w in made[1:])


def test_a_module_that_does_not_fit_never_gets_into_an_image(
    stocked: Any, ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VERMAGIC", f"{RELEASE} SMP preempt")
    workshop = Workshop()

    with pytest.raises(ImageError, match="do not fit it and must not be loaded") as raised:
        built(workshop)

    assert "group/vfio_ap: vermagic is" in raised.value.seen
    assert [one.name for one in workshop.store.entries()] == ["ap-kernel", "s390x-tools"]


def test_headers_of_another_configuration_are_refused(
    stocked: Any, ran: list[list[str]], tmp_path: Path
) -> None:
    other = CONFIG.replace("CONFIG_KVM=m", "CONFIG_KVM=y")
    stock_sources(stocked, VERSION, tmp_path / "again", config=f"{other}CONFIG_BUILD_SALT=1\n")

    with pytest.raises(ImageError, match="another configuration") as raised:
        built(Workshop())

    assert raised.value.seen == "CONFIG_KVM=m, in the headers: CONFIG_KVM=y"


def test_a_mirror_that_moved_on_is_named_with_what_it_has(
    stocked: Any, ran: list[list[str]], tmp_path: Path, old_lists: Callable[[], None]
) -> None:
    workshop = Workshop()
    obtain_kernel(workshop, SUITE, name="ap-kernel")
    stock_sources(stocked, "6.12.11-1", tmp_path)
    old_lists()

    with pytest.raises(SourceGone, match="the mirror has moved on") as raised:
        built(workshop)

    assert "needed is version 6.12.9-1" in raised.value.seen
    assert "linux-source-6.12 6.12.11-1" in raised.value.seen


def test_a_kernel_without_a_source_makes_room_for_the_one_that_has_one(
    stocked: Any,
    ran: list[list[str]],
    elves: Any,
    tmp_path: Path,
    old_lists: Callable[[], None],
) -> None:
    workshop = Workshop()
    older = obtain_kernel(workshop, SUITE, name="ap-kernel")
    stock_kernel(stocked, "6.12.9-2", elves)
    stock_sources(stocked, "6.12.9-2", tmp_path)
    old_lists()

    kernel, modules = kernel_with_modules(workshop, SUITE, RECIPE)

    assert kernel.key != older.key
    assert modules is not None
    artifact = workshop.store.find("ap-modules", modules.key)
    assert artifact is not None
    assert set(artifact.manifest().packages.values()) == {"6.12.9-2"}


def test_a_kernel_of_ones_own_without_vfio_ap_is_told_what_to_configure(
    stocked: Any, tmp_path: Path
) -> None:
    (tmp_path / "bzImage").write_bytes(s390x_kernel())
    (tmp_path / f"mods/{RELEASE}").mkdir(parents=True)
    source = KernelSource.parse(f"{tmp_path / 'bzImage'}:{tmp_path / 'mods'}")
    workshop = Workshop()
    kernel = obtain_kernel(workshop, source, name="ap-kernel")

    with pytest.raises(ImageError, match="no vfio_ap") as raised:
        obtain_ap_modules(workshop, kernel, source, RECIPE)

    assert "CONFIG_VFIO_AP=m" in raised.value.hint


def test_a_kernel_with_vfio_ap_needs_no_build(stocked: Any, elves: Any, tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(s390x_kernel())
    modules = tmp_path / f"mods/{RELEASE}/kernel"
    modules.mkdir(parents=True)
    for name in ("mdev", "vfio_ap"):
        (modules / f"{name}.ko").write_bytes(elves.module(name))
    source = KernelSource.parse(f"{tmp_path / 'bzImage'}:{tmp_path / 'mods'}")
    workshop = Workshop()
    kernel = obtain_kernel(workshop, source, name="ap-kernel")

    assert obtain_ap_modules(workshop, kernel, source, RECIPE) is None

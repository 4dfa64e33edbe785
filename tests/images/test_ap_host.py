"""The AP host as a whole, from stand-ins; and what it is put together from."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError, ImageError
from harness.images.ap_host import obtain_ap_host
from harness.images.ap_modules import ApModules
from harness.images.ap_programs import obtain_ap_programs
from harness.images.ap_qemu import obtain_inner_qemu
from harness.images.ap_recipe import ApHostRecipe
from harness.images.ap_root import applets, obtain_ap_root
from harness.images.build_root import BuildRoot
from harness.images.kernel import BuiltKernel
from harness.images.kernel_source import KernelSource, is_s390x, read_release
from harness.images.recipe import KernelRecipe, QemuRecipe, load_recipe
from harness.images.workshop import Workshop

RELEASE = "6.12.9-s390x"
RECIPE = load_recipe(ApHostRecipe, "ap-host")
LIBRARIES = "usr/lib/s390x-linux-gnu"
APPLETS = b"\x01[\0[[\0cat\0insmod\0mount\0sh\0\xc2\0"


@pytest.fixture
def stocked(archive: Any, elves: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The archive has stand-ins for the s390x system and its QEMU, and is the mirror."""
    archive.add(
        "libc6",
        files={f"{LIBRARIES}/{name}": elves.program() for name in ("ld64.so.1", "libc.so.6")},
        architecture="s390x",
    )
    archive.add("busybox-static", files={"usr/bin/busybox": elves.elf({".rodata": APPLETS})},
                architecture="s390x")  # fmt: skip
    archive.add(
        "s390-tools",
        depends="libc6, perl",
        files={
            name: elves.program("libc.so.6") for name in RECIPE.keep if not name.endswith("box")
        },
        architecture="s390x",
    )
    archive.add(
        "qemu-system-s390x",
        "1:10.0.13+ds-1",
        depends="libc6",
        files={
            "usr/bin/qemu-system-s390x": elves.program("libc.so.6"),
            "usr/share/qemu/s390-ccw.img": b"firmware",
            f"{LIBRARIES}/libgcc_s.so.1": elves.program(),
            f"{LIBRARIES}/qemu/accel-tcg-s390x.so": elves.program("libc.so.6"),
            f"{LIBRARIES}/qemu/ui-gtk.so": elves.program("libgtk.so"),
        },
        architecture="s390x",
    )
    monkeypatch.setenv("TRAPLINE_MIRROR", archive.mirror.uri)
    monkeypatch.setenv("TRAPLINE_KEYRING", "none")
    return archive


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    place = tmp_path / "key/files"
    place.mkdir(parents=True)
    (place / "trapline-agent").write_text("agent")
    return place


def kernel(tmp_path: Path, elves: Any, *names: str) -> BuiltKernel:
    """Return a kernel that has these modules."""
    modules = tmp_path / "modules" / RELEASE
    depends = {"vfio_iommu_type1": "vfio", "vfio_ap": "vfio,mdev", "erofs": "libcrc32c"}
    for name in names:
        path = modules / f"kernel/{name}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(elves.module(name, depends=depends.get(name, "")))
    return BuiltKernel("key", "mine", RELEASE, tmp_path / "vmlinuz", None, None, modules)


BASE = ("zcrypt", "zcrypt_cex4", "kvm", "vfio", "vfio_iommu_type1", "virtio_blk", "erofs",
        "libcrc32c")  # fmt: skip


@pytest.fixture
def built(tmp_path: Path, elves: Any) -> ApModules:
    """Modules that were built: two sets, and kvm for both."""
    sets = {
        "common": ["kvm"],
        "group": ["mdev", "vfio_ap"],
        "cdev": ["iommufd", "mdev", "vfio", "vfio_ap", "vfio_iommu_type1"],
    }
    depends = {"vfio_iommu_type1": "vfio", "vfio_ap": "vfio,mdev,kvm", "vfio": "iommufd"}
    for where, names in sets.items():
        (tmp_path / "built" / where).mkdir(parents=True)
        for name in names:
            wanted = "" if where == "group" and name == "vfio" else depends.get(name, "")
            path = tmp_path / "built" / where / f"{name}.ko"
            path.write_bytes(elves.module(name, depends=wanted))
    return ApModules("key", tmp_path / "built")


def extracted(initrd: Path, into: Path) -> Path:
    into.mkdir()
    with initrd.open("rb") as file:
        subprocess.run(["cpio", "-id", "--quiet"], stdin=file, cwd=into, check=True)
    return into


def listed(root: Path, name: str) -> list[str]:
    text = (root / f"usr/share/trapline/modules-{name}.list").read_text()
    assert all((root / line.lstrip("/")).is_file() for line in text.split())
    return text.split()


def test_the_recipes_can_be_read() -> None:
    assert load_recipe(KernelRecipe, "ap-kernel").debian.architecture == "s390x"
    assert load_recipe(QemuRecipe, "ap-qemu").debian.architecture == "s390x"
    assert load_recipe(QemuRecipe, "qemu-s390x").debian.architecture == "amd64"


def test_the_initramfs_has_programs_libraries_applets_and_our_files(
    stocked: Any, elves: Any, tmp_path: Path, built: ApModules, programs: Path
) -> None:
    image = obtain_ap_root(Workshop(), RECIPE, kernel(tmp_path, elves, *BASE), built, programs)
    root = extracted(image, tmp_path / "root")

    assert (root / "usr/bin/trapline-agent").read_text() == "agent"
    assert (root / "usr/bin/insmod").readlink() == Path("busybox")
    assert (root / "usr/lib/ld64.so.1").is_file()
    assert (root / LIBRARIES / "libc.so.6").is_file()
    assert (root / "init").stat().st_mode & 0o111
    assert (root / "usr/sbin/lszcrypt").is_file()


def test_each_set_is_listed_in_the_order_of_insertion(
    stocked: Any, elves: Any, tmp_path: Path, built: ApModules, programs: Path
) -> None:
    image = obtain_ap_root(Workshop(), RECIPE, kernel(tmp_path, elves, *BASE), built, programs)
    root = extracted(image, tmp_path / "root")

    group = [Path(line).stem for line in listed(root, "group")]
    assert group == [
        "zcrypt", "zcrypt_cex4", "kvm", "vfio", "vfio_iommu_type1", "mdev", "vfio_ap"
    ]  # fmt: skip
    assert [Path(line).stem for line in listed(root, "cdev")] == ["iommufd", *group]
    assert [Path(line).stem for line in listed(root, "disk")] == [
        "virtio_blk", "libcrc32c", "erofs"
    ]  # fmt: skip


def test_sets_do_not_mix_but_for_what_they_have_in_common(
    stocked: Any, elves: Any, tmp_path: Path, built: ApModules, programs: Path
) -> None:
    image = obtain_ap_root(Workshop(), RECIPE, kernel(tmp_path, elves, *BASE), built, programs)
    root = extracted(image, tmp_path / "root")
    group, cdev = ({Path(p).stem: p for p in listed(root, n)} for n in ("group", "cdev"))

    assert {n for n in group if group[n] == cdev[n]} == {"zcrypt", "zcrypt_cex4", "kvm"}
    assert group["kvm"].endswith("/extra/kvm.ko")
    assert cdev["vfio"] == "/usr/lib/modules-cdev/vfio.ko"


def test_a_kernel_with_all_of_it_has_one_list_for_both(
    stocked: Any, elves: Any, tmp_path: Path, programs: Path
) -> None:
    whole = kernel(tmp_path, elves, *BASE, "mdev", "vfio_ap", "iommufd")

    root = extracted(obtain_ap_root(Workshop(), RECIPE, whole, None, programs), tmp_path / "root")

    assert listed(root, "group") == listed(root, "cdev")
    assert listed(root, "group")[-1].endswith("vfio_ap.ko")


def test_a_kernel_that_lacks_a_driver_is_told_which(
    stocked: Any, elves: Any, tmp_path: Path, built: ApModules, programs: Path
) -> None:
    without = kernel(tmp_path, elves, *(name for name in BASE if name != "zcrypt_cex4"))

    with pytest.raises(ImageError, match="zcrypt_cex4 is neither built in nor a module"):
        obtain_ap_root(Workshop(), RECIPE, without, built, programs)


def test_the_inner_qemu_is_a_disk_with_loader_libraries_and_firmware(stocked: Any) -> None:
    qemu = obtain_inner_qemu(Workshop())

    assert (qemu.label, qemu.version.major, qemu.version.micro) == ("debian:trixie", 10, 13)
    assert qemu.argv_prefix == (
        "/opt/qemu/lib/ld64.so.1", "--library-path", "/opt/qemu/lib",
        "/opt/qemu/bin/qemu-system-s390x", "-L", "/opt/qemu/share/qemu",
    )  # fmt: skip
    data = qemu.erofs.read_bytes()
    assert all(name in data for name in (b"s390-ccw.img", b"libgcc_s.so.1", b"accel-tcg-s390x.so"))
    assert b"ui-gtk.so" not in data


def test_applets_are_read_from_a_program_that_does_not_run_here() -> None:
    assert applets(b"code" + APPLETS) == ["[", "[[", "cat", "insmod", "mount", "sh"]


@pytest.mark.parametrize("data", [b"", b"[\0[[\0cat\0", b"no names at all"])
def test_a_busybox_without_the_applets_that_are_needed_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="cannot be found"):
        applets(data)


def test_programs_are_compiled_for_the_mainframe_in_the_tree(
    archive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAPLINE_MIRROR", archive.mirror.uri)
    monkeypatch.setenv("TRAPLINE_KEYRING", "none")
    compiler = "s390x-linux-gnu-gcc-14"
    archive.add("gcc-14-s390x-linux-gnu", files={f"usr/bin/{compiler}": "#!/bin/sh\n"})
    tools = RECIPE.tools.model_copy(update={"packages": RECIPE.tools.packages[:1]})
    calls: list[list[str]] = []

    def run(self: BuildRoot, argv: Any, work: Path, *, purpose: str) -> str:
        calls.append([str(word) for word in argv])
        target = Path(calls[-1][calls[-1].index("-o") + 1])
        (work / target.name).write_text(purpose)
        return ""

    monkeypatch.setattr(BuildRoot, "run", run)

    found = obtain_ap_programs(Workshop(), RECIPE.model_copy(update={"tools": tools}))

    assert (found / "trapline-agent").read_text() == "compile trapline-agent for s390x"
    assert {words[0] for words in calls} == {compiler}
    assert all("-static" in words for words in calls)


def test_the_release_of_an_s390x_kernel_is_read(tmp_path: Path) -> None:
    image = bytearray(0x11000)
    image[0x10008:0x1000E] = b"S390EP"
    image[0x10428:0x10430] = (0x10800).to_bytes(8, "big")
    image[0x10800:0x10820] = b"7.2.13-s390x (a@b) #1 SMP".ljust(0x20, b"\0")
    (tmp_path / "bzImage").write_bytes(image)

    assert is_s390x(tmp_path / "bzImage")
    assert read_release(tmp_path / "bzImage") == "7.2.13-s390x"


def test_a_kernel_of_a_pc_cannot_be_an_ap_host(tmp_path: Path) -> None:
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    (tmp_path / "bzImage").write_bytes(image)

    with pytest.raises(ConfigError, match="not one for s390x"):
        obtain_ap_host(Workshop(), KernelSource(bzimage=tmp_path / "bzImage"))

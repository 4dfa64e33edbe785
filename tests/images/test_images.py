"""Whole images from the real recipes, with stand-ins for the packages; no network."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError, ImageError
from harness.images.images import Images, KernelSource
from harness.images.kernel import BuiltKernel, obtain_kernel
from harness.images.recipe import (
    GuestRecipe,
    HostRecipe,
    KernelRecipe,
    ProbeRecipe,
    QemuRecipe,
    load_recipe,
)
from harness.images.workshop import Workshop

RELEASE = "6.12.0-test"
BUSYBOX = "#!/bin/sh\nprintf 'cat\\nls\\nlspci\\nmodprobe\\nsh\\n'\n"


def bzimage(release: str = RELEASE) -> bytes:
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x800)
    text = f"{release} (x@y) #1\0".encode()
    image[0xA00 : 0xA00 + len(text)] = text
    return bytes(image)


@pytest.fixture
def stocked(archive: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The archive has stand-ins for every package of the recipes, and is the mirror."""
    builtin = "".join(
        f"kernel/x/{name}.ko\n" for name in load_recipe(HostRecipe, "host").initrd_modules
    )
    archive.add(
        f"linux-image-{RELEASE}",
        "6.12-1",
        depends="kmod, initramfs-tools | linux-initramfs-tool",
        files={
            f"boot/vmlinuz-{RELEASE}": bzimage(),
            f"boot/config-{RELEASE}": "CONFIG_PCI=y\n",
            f"usr/lib/modules/{RELEASE}/modules.builtin": builtin,
        },
    )
    archive.add("linux-image-amd64", "6.12-1", depends=f"linux-image-{RELEASE}")
    archive.add("busybox-static", files={"usr/bin/busybox": BUSYBOX})
    archive.add(
        "dropbear-bin",
        files={"usr/sbin/dropbear": "#!/bin/sh\n", "usr/bin/dropbearkey": "#!/bin/sh\n"},
    )
    archive.add(
        "openssh-sftp-server",
        depends="app",
        files={"usr/lib/openssh/sftp-server": "#!/bin/sh\n", "usr/lib/sftp-server": "#!/bin/sh\n"},
    )
    archive.add("pciutils", files={"usr/bin/lspci": "#!/bin/sh\n", "usr/share/doc/x": "x"})
    for name in ("base-files", "kmod", "libc6"):
        archive.add(name)
    monkeypatch.setenv("TRAPLINE_MIRROR", archive.mirror.uri)
    monkeypatch.setenv("TRAPLINE_KEYRING", "none")
    return archive


def listed(image: Path) -> dict[str, str]:
    """Return what a cpio archive holds: name and mode."""
    with image.open("rb") as file:
        said = subprocess.run(["cpio", "-tv"], stdin=file, capture_output=True, text=True)
    rows = (line.split() for line in said.stdout.splitlines())
    return {row[8]: row[0] for row in rows}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (KernelRecipe, "kernel"),
        (HostRecipe, "host"),
        (GuestRecipe, "guest"),
        (ProbeRecipe, "probe"),
        (QemuRecipe, "qemu"),
    ],
)
def test_every_recipe_can_be_read(model: Any, name: str) -> None:
    assert load_recipe(model, name)


def test_a_recipe_with_a_field_that_nobody_knows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.paths.recipes_dir", lambda: tmp_path)
    (tmp_path / "probe.toml").write_text(
        'program = "p"\nsources = []\nflags = []\ncolour = "red"\n'
    )

    with pytest.raises(ConfigError, match="colour"):
        load_recipe(ProbeRecipe, "probe")


def test_a_kernel_comes_with_modules_configuration_and_initrd(stocked: Any) -> None:
    kernel = Images().kernel()

    assert kernel.release == RELEASE
    assert kernel.label == "debian:trixie"
    assert kernel.config is not None
    assert kernel.modules_erofs is not None
    assert {"init", "bin/busybox", "modules"} <= listed(kernel.initrd_for_host).keys()
    record = json.loads((kernel.vmlinuz.parent / "selection.json").read_text())
    assert "virtio_blk" in record["built in"]
    assert "igb" in record["absent"]


def test_the_record_of_a_kernel_names_its_packages(stocked: Any) -> None:
    workshop = Workshop()
    obtain_kernel(workshop)

    (artifact,) = workshop.store.entries()
    assert artifact.manifest().packages == {
        "linux-image-amd64": "6.12-1",
        f"linux-image-{RELEASE}": "6.12-1",
    }


def test_a_kernel_that_cannot_mount_the_root_is_refused(stocked: Any) -> None:
    stocked.add(
        f"linux-image-{RELEASE}",
        "6.12-2",
        files={
            f"boot/vmlinuz-{RELEASE}": bzimage(),
            f"usr/lib/modules/{RELEASE}/modules.builtin": "kernel/x/virtio_pci.ko\n",
        },
    )

    with pytest.raises(ImageError, match=r"cannot mount the root[\s\S]*erofs"):
        Images().kernel()


def test_a_bzimage_alone_gets_an_initrd_without_modules(stocked: Any, tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(bzimage("7.3.0-mine"))

    kernel = Images().kernel(KernelSource.parse(str(tmp_path / "bzImage")))

    assert (kernel.release, kernel.modules_erofs, kernel.config) == ("7.3.0-mine", None, None)
    assert "lib" not in listed(kernel.initrd_for_host)


def test_a_rebuilt_bzimage_is_another_kernel(stocked: Any, tmp_path: Path) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(bzimage("7.3.0-mine"))
    before = Images().kernel(KernelSource.parse(str(path)))
    path.write_bytes(bzimage("7.3.1-mine"))

    after = Images().kernel(KernelSource.parse(str(path)))

    assert after.vmlinuz != before.vmlinuz


def test_a_guest_holds_its_programs_and_starts_with_ours(stocked: Any) -> None:
    images = Images()
    guest = images.guest(images.kernel())

    names = listed(guest.initrd)
    assert names["init"] == "-rwxr-xr-x"
    assert {"usr/sbin/dropbear", "usr/bin/probe", "usr/bin/cat", "etc/passwd"} <= names.keys()
    assert "usr/share/app" not in names
    assert guest.erofs.is_file()


def test_a_host_root_is_made(stocked: Any, tmp_path: Path) -> None:
    root = Images().host().root_erofs

    subprocess.run(
        ["fsck.erofs", f"--extract={tmp_path / 'out'}", root], check=True, capture_output=True
    )
    out = tmp_path / "out"
    assert (out / "init").stat().st_mode & 0o111
    assert (out / "usr/bin/cat").readlink() == Path("busybox")
    assert not (out / "usr/bin/lspci").is_symlink()
    assert not (out / "usr/share/doc").exists()
    assert not (out / "initrd-init").exists()
    assert (out / "opt/qemu").is_dir()


def everything() -> list[object]:
    images = Images()
    kernel = images.kernel()
    return [images.probe(), kernel, images.host(), images.guest(kernel)]


def test_a_warm_cache_needs_neither_apt_nor_network(
    stocked: Any, fake_program: Callable[[str, str], Path]
) -> None:
    before = everything()
    fake_program("apt-get", "echo 'apt-get was run' >&2; exit 1")

    assert everything() == before


def test_a_damaged_image_is_made_again(stocked: Any) -> None:
    kernel = obtain_kernel(Workshop())
    kernel.vmlinuz.chmod(0o644)
    kernel.vmlinuz.write_bytes(b"rubbish")

    again = obtain_kernel(Workshop())

    assert again == kernel
    assert again.vmlinuz.read_bytes() == bzimage()


def test_newer_packages_are_taken_only_when_asked_for(stocked: Any, cache: Path) -> None:
    before = obtain_kernel(Workshop())
    stocked.add("linux-image-amd64", "6.12-9", depends=f"linux-image-{RELEASE}")
    for stamp in cache.glob("apt/*/updated"):
        stamp.unlink()

    kept = obtain_kernel(Workshop())
    newer = obtain_kernel(Workshop(refresh=True))

    assert kept == before
    assert isinstance(newer, BuiltKernel)
    assert newer.key != before.key


def test_a_probe_that_does_not_compile_quotes_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe/main.c").write_text("int main(void) { return nonsense; }\n")
    (tmp_path / "probe.toml").write_text('program = "p"\nsources = ["probe/*.c"]\nflags = []\n')
    (tmp_path / "packages.txt").write_text("")
    monkeypatch.setattr("harness.paths.recipes_dir", lambda: tmp_path)

    with pytest.raises(ImageError, match="nonsense"):
        Images().probe()

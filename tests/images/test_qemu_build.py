"""QEMU builds, with shell scripts and a small C program in their place."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import ConfigError, ImageError, LaunchFailed, MissingPackage
from harness.images.libraries import is_dynamic, needed_libraries
from harness.images.qemu_build import QemuBuild
from harness.model.version import QemuVersion

ANSWERS = """\
echo "$*" >> "$0.log"
case "$*" in
*-version) echo 'QEMU emulator version 9.2.4 (mine)';;
*"-L help") echo "$(dirname "$0")/pc-bios";;
*"-device help") echo 'name "igb", bus PCI'; echo 'name "vfio-pci", bus PCI';;
*"-device vfio-pci,help") echo '  x-no-mmap=<bool> - (default: false)';;
*"-accel help") echo 'Accelerators supported in QEMU binary:'; echo tcg;;
*"-netdev help") echo 'Available netdev backend types:'; echo user;;
*"-machine help") echo 'Supported machines are:'; echo 'q35   PC';;
*) echo "unexpected: $*" >&2; exit 1;;
esac"""

Fake = Callable[[str, str], Path]


def with_firmware(script: Path) -> Path:
    firmware = script.parent / "pc-bios"
    firmware.mkdir()
    (firmware / "bios-256k.bin").write_bytes(b"bios")
    return firmware


def test_a_binary_is_asked_for_version_and_firmware(fake_program: Fake) -> None:
    script = fake_program("qemu-system-x86_64", ANSWERS)
    firmware = with_firmware(script)

    build = QemuBuild.resolve(str(script))

    assert build.version == QemuVersion(9, 2, 4)
    assert build.argv_prefix == (str(script), "-L", str(firmware))
    assert build.data_dirs == (firmware,)


@pytest.mark.parametrize("below", ["", "build", "bin"])
def test_a_build_directory_stands_for_its_binary(
    fake_program: Fake, tmp_path: Path, below: str
) -> None:
    script = fake_program("qemu-system-x86_64", ANSWERS)
    place = tmp_path / "tree" / below
    place.mkdir(parents=True)
    moved = script.rename(place / script.name)
    with_firmware(moved)

    assert QemuBuild.resolve(str(tmp_path / "tree")).binary == moved


def test_system_is_what_the_search_path_has(fake_program: Fake) -> None:
    script = fake_program("qemu-system-x86_64", ANSWERS)
    with_firmware(script)

    build = QemuBuild.resolve("system")

    assert (build.label, build.binary) == ("system", script)


def test_a_machine_without_qemu_gets_the_package_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(MissingPackage, match="debian:SUITE"):
        QemuBuild.resolve("system")


def test_a_path_that_is_not_there_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        QemuBuild.resolve(str(tmp_path / "nosuch"))


def test_a_directory_without_qemu_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no qemu-system-x86_64"):
        QemuBuild.resolve(str(tmp_path))


def test_a_file_that_cannot_be_executed_says_how_to_make_it_so(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("x")

    with pytest.raises(ConfigError, match=r"chmod \+x"):
        QemuBuild.resolve(str(tmp_path / "qemu"))


def test_another_program_is_told_from_qemu_by_what_it_says(fake_program: Fake) -> None:
    script = fake_program("qemu-img", "echo 'qemu-img version 9.2.4'")

    with pytest.raises(ConfigError, match=r"is not QEMU[\s\S]*qemu-img version"):
        QemuBuild.resolve(str(script))


def test_a_qemu_that_ends_at_start_is_quoted(fake_program: Fake) -> None:
    script = fake_program("qemu-system-x86_64", "echo 'libfoo.so.1: cannot open' >&2; exit 127")

    with pytest.raises(LaunchFailed, match="libfoo") as caught:
        QemuBuild.resolve(str(script))

    assert caught.value.exit_status == 127


def test_a_qemu_that_crashes_at_start_names_the_signal(fake_program: Fake) -> None:
    script = fake_program("qemu-system-x86_64", "echo boom >&2; kill -SEGV $$")

    with pytest.raises(LaunchFailed, match="signal 11") as caught:
        QemuBuild.resolve(str(script))

    assert caught.value.stderr == "boom\n"


def test_a_program_of_another_architecture_cannot_be_started(tmp_path: Path) -> None:
    binary = tmp_path / "qemu"
    binary.write_bytes(b"\x7fELF\x02\x02 not for this machine")
    binary.chmod(0o755)

    with pytest.raises(LaunchFailed, match="cannot be started"):
        QemuBuild.resolve(str(binary))


def test_features_are_asked_once_and_kept_by_identity(fake_program: Fake) -> None:
    script = fake_program("qemu-system-x86_64", ANSWERS)
    with_firmware(script)

    for _ in range(2):
        features = QemuBuild.resolve(str(script)).features
        assert features.has_device("igb")
        assert not features.has_device("nosuch")
        assert features.has_property("vfio-pci", "x-no-mmap")
        assert not features.has_property("nosuch", "x")
        assert features.accelerators == {"tcg"}
        assert features.netdevs == {"user"}
        assert features.machines == {"q35"}

    asked = script.with_name(script.name + ".log").read_text().splitlines()
    assert sum("-device help" in line for line in asked) == 1
    assert sum("-version" in line for line in asked) == 1


def test_a_rebuilt_binary_is_asked_again(fake_program: Fake) -> None:
    script = fake_program("qemu-system-x86_64", ANSWERS)
    with_firmware(script)
    before = QemuBuild.resolve(str(script))
    script.write_text(script.read_text().replace("9.2.4", "10.1.0"))

    after = QemuBuild.resolve(str(script))

    assert after.version == QemuVersion(10, 1, 0)
    assert after.identity != before.identity


def test_a_script_cannot_be_carried_into_a_host(fake_program: Fake) -> None:
    script = fake_program("qemu-system-x86_64", ANSWERS)
    with_firmware(script)

    with pytest.raises(ConfigError, match="not a script"):
        QemuBuild.resolve(str(script)).pack()


SOURCE = r"""
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-version"))
            puts("QEMU emulator version 10.2.50");
        if (!strcmp(argv[i], "help"))
            puts("/nonexistent");
    }
    return 0;
}
"""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("build")
    (place / "q.c").write_text(SOURCE)
    binary = place / "qemu-system-x86_64"
    subprocess.run(["gcc", "-o", binary, place / "q.c"], check=True)
    with_firmware(binary)
    return binary


def test_a_packed_build_runs_from_its_own_tree(compiled: Path) -> None:
    packed = QemuBuild.resolve(str(compiled)).pack()

    run = json.loads((packed.tree / "run.json").read_text())
    assert run == {"argv_prefix": list(packed.argv_prefix), "env": dict(packed.env)}
    assert packed.argv_prefix[0] == "/opt/qemu/lib/ld-linux-x86-64.so.2"
    here = [word.replace("/opt/qemu", str(packed.tree)) for word in packed.argv_prefix]
    said = subprocess.run([*here, "-version"], capture_output=True, text=True, check=True)
    assert said.stdout == "QEMU emulator version 10.2.50\n"
    assert packed.erofs.stat().st_size > 1_000_000
    assert (packed.tree / "share/qemu/bios-256k.bin").read_bytes() == b"bios"


def test_packing_again_takes_it_from_the_store(compiled: Path) -> None:
    first = QemuBuild.resolve(str(compiled)).pack()

    assert QemuBuild.resolve(str(compiled)).pack() == first


def test_a_build_without_firmware_gets_debians(
    compiled: Path, tmp_path: Path, archive: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("qemu-system-data", "seabios", "ipxe-qemu"):
        files = {"usr/share/seabios/bios-256k.bin": "debian"} if name == "seabios" else None
        archive.add(name, files=files)  # type: ignore[attr-defined]
    monkeypatch.setenv("TRAPLINE_MIRROR", archive.mirror.uri)  # type: ignore[attr-defined]
    monkeypatch.setenv("TRAPLINE_KEYRING", "none")
    bare = tmp_path / "bare"
    bare.mkdir()
    binary = bare / compiled.name
    binary.write_bytes(compiled.read_bytes())
    binary.chmod(0o755)

    build = QemuBuild.resolve(str(binary))

    assert build.argv_prefix[1] == "-L"
    firmware = build.pack().tree / "share/qemu/bios-256k.bin"
    assert firmware.read_text() == "debian"


def test_what_is_no_suite_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such suite"):
        QemuBuild.resolve("debian:../etc")


def test_scripts_and_data_have_no_libraries(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")

    assert not is_dynamic(script)
    assert needed_libraries(Path("/lib64/ld-linux-x86-64.so.2"), [], script) == []


def test_a_missing_library_is_named(compiled: Path, tmp_path: Path) -> None:
    (tmp_path / "l.c").write_text("int f(void) { return 0; }\n")
    (tmp_path / "m.c").write_text("int f(void); int main(void) { return f(); }\n")
    library = tmp_path / "libgone.so"
    subprocess.run(["gcc", "-shared", "-o", library, tmp_path / "l.c"], check=True)
    subprocess.run(["gcc", "-o", tmp_path / "m", tmp_path / "m.c", library], check=True)
    library.unlink()

    with pytest.raises(ImageError, match="libgone"):
        needed_libraries(Path("/lib64/ld-linux-x86-64.so.2"), [], tmp_path / "m")

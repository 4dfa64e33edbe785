"""The peer virtme-ng: how it is started, and what is said when it is not there."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.bench import virtme
from harness.bench.virtme_kit import Kit
from harness.errors import MissingPackage
from harness.images.recipe import KernelRecipe, load_recipe


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.setattr(sys, "executable", os.fspath(tmp_path / "python"))


@pytest.mark.usefixtures("nothing_installed")
def test_a_missing_virtme_ng_is_told_with_the_command_that_installs_it() -> None:
    with pytest.raises(MissingPackage, match="virtme-ng is not installed") as caught:
        virtme.require_vng()

    assert "-m pip install virtme-ng" in caught.value.hint


@pytest.mark.usefixtures("nothing_installed")
def test_virtme_ng_beside_our_python_is_found(tmp_path: Path) -> None:
    (tmp_path / "vng").touch()

    assert virtme.require_vng() == tmp_path / "vng"


@pytest.mark.parametrize("tcg", [True, False])
def test_virtme_ng_gets_our_kernel_qemu_memory_and_accelerator(tcg: bool) -> None:
    kit = Kit(Path("/kit/root"), "6.12.1")
    words = virtme.command(Path("/bin/vng"), kit, Path("/t/qemu"), memory_mib=2048, tcg=tcg)

    pairs = dict(itertools.pairwise(words))
    assert pairs["--run"] == "/kit/root/boot/vmlinuz-6.12.1"
    assert pairs["--qemu"] == "/t/qemu"
    assert pairs["--memory"] == "2048M"
    assert ("--disable-kvm" in words) is tcg


def test_a_wrapper_is_one_word_for_many_and_hands_its_arguments_on(tmp_path: Path) -> None:
    script = tmp_path / "wrapper"
    script.write_text(
        virtme.wrapper(["/bin/sh", "-c", 'echo "$NAME" "$@"', "sh"], {"NAME": "it's"})
    )
    script.chmod(0o700)

    said = subprocess.run([script, "a b", "c"], capture_output=True, text=True, check=True)

    assert said.stdout == "it's a b c\n"


def test_the_recipe_of_its_root_has_what_its_init_and_initramfs_need() -> None:
    recipe = load_recipe(KernelRecipe, "peer")

    assert {"udev", "bash", "busybox-static", "virtiofsd"} <= set(recipe.debian.packages)
    assert {"9p", "9pnet_virtio", "virtiofs"} <= set(recipe.modules)

"""Which modules may be loaded into which kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.errors import ImageError
from harness.images.module_abi import ModuleAbi, differences

Abi = Callable[..., ModuleAbi]

CRCS = {"module_layout": 0x1234, "mutex_lock": 0xABCD}


@pytest.fixture
def abi(elves: Any) -> Abi:
    """Make a module, with these changes, and read it."""

    def make(name: str, **changes: object) -> ModuleAbi:
        return ModuleAbi.read(elves.module(name, **{"versions": CRCS, **changes}), name)

    return make


def test_a_module_says_what_it_takes_for_granted(abi: Abi) -> None:
    assert abi("vfio") == ModuleAbi(
        "vfio",
        "6.12-test SMP",
        1536,
        (("cleanup_module", 1416), ("init_module", 312)),
        (("module_layout", 0x1234), ("mutex_lock", 0xABCD)),
    )


def test_a_module_like_the_kernels_own_fits(abi: Abi) -> None:
    assert differences(abi("mdev"), [abi("vfio"), abi("kvm", versions={"other": 1})]) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vermagic": "6.12-test SMP preempt"}, "mdev: vermagic is '6.12-test SMP preempt'"),
        ({"size": 1472}, "mdev: struct module has 1472 bytes, the kernel's 1536"),
        ({"init_at": 320}, "mdev: init_module of struct module is at 0x140, not at 0x138"),
        ({"versions": CRCS | {"mutex_lock": 1}}, "mdev: mutex_lock has checksum 0x1"),
        ({"versions": {}}, "mdev: it has no checksums"),
    ],
)
def test_what_differs_is_named(abi: Abi, changes: dict[str, object], said: str) -> None:
    found = differences(abi("mdev", **changes), [abi("vfio")])

    assert [why for why in found if why.startswith(said)], found


def test_a_kernel_without_checksums_asks_for_none(abi: Abi) -> None:
    assert differences(abi("mdev", versions=None), [abi("vfio", versions=None)]) == []


def test_checksums_of_a_module_that_ours_replaces_do_not_count(abi: Abi) -> None:
    theirs = [abi("kvm"), abi("vfio", versions=CRCS | {"vfio_register": 1})]
    built = abi("vfio_ap", versions=CRCS | {"vfio_register": 2})

    assert differences(built, theirs, replaced=["vfio"]) == []
    assert differences(built, theirs) != []


def test_a_kernel_with_nothing_to_compare_with_is_not_trusted(abi: Abi) -> None:
    assert differences(abi("mdev"), []) == ["mdev: the kernel has no module to compare it with"]


def test_longer_names_of_newer_kernels_are_read(elves: Any) -> None:
    sections = {
        ".modinfo": b"vermagic=7\0",
        ".gnu.linkonce.this_module": bytes(8),
        "__version_ext_crcs": (7).to_bytes(4, "big") + (8).to_bytes(4, "big"),
        "__version_ext_names": b"first\0second\0",
    }

    assert ModuleAbi.read(elves.elf(sections), "x").versions == (("first", 7), ("second", 8))


def test_what_is_no_module_is_refused(elves: Any) -> None:
    with pytest.raises(ImageError, match="no kernel module"):
        ModuleAbi.read(elves.elf({".text": b"x"}), "x")

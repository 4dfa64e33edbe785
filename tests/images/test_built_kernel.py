"""The kernel that is compiled here: its name, its recipe, its configuration."""

from pathlib import Path

import pytest

from harness import paths
from harness.errors import ConfigError
from harness.images import built_kernel
from harness.images.apt import Apt
from harness.images.built_kernel import CONFIGURATION, BuiltKernelRecipe, unmet
from harness.images.kernel_source import KernelSource
from harness.images.kernel_tests import KernelTestsRecipe
from harness.images.linux_source import source_package
from harness.images.mirror import Mirror
from harness.images.recipe import load_recipe


def test_a_series_is_a_source() -> None:
    source = KernelSource.parse("built:7.3")

    assert source.series == "7.3"
    assert str(source) == "built:7.3"


@pytest.mark.parametrize("text", ["built:", "built:7", "built:../etc", "built:7.3.1"])
def test_what_is_no_series_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no such series"):
        KernelSource.parse(text)


def test_the_recipes_can_be_read() -> None:
    assert load_recipe(BuiltKernelRecipe, "built-kernel").modules
    assert load_recipe(KernelTestsRecipe, "kernel-tests").tests


def test_the_source_is_the_package_alone() -> None:
    assert source_package("experimental", "7.3").alone == ("linux-source-7.3",)


def test_experimental_has_unstable_under_it(tmp_path: Path) -> None:
    apt = Apt(tmp_path, tmp_path, "experimental", Mirror("file:/archive", trusted=True))

    assert [line.split()[-2] for line in apt.source_list().splitlines()] == ["sid", "experimental"]


def test_no_line_of_the_configuration_is_there_twice() -> None:
    text = (paths.recipes_dir() / CONFIGURATION).read_text()
    names = [line.partition("=")[0] for line in text.splitlines() if line.startswith("CONFIG_")]

    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    "option",
    ["IOMMUFD", "IOMMUFD_TEST", "VFIO_DEVICE_CDEV", "VFIO_GROUP", "VFIO_CONTAINER",
     "VFIO_NOIOMMU", "UIO_PCI_GENERIC", "SAMPLE_VFIO_MDEV_MTTY", "INTEL_IOMMU_DEBUGFS",
     "VIRTIO_IOMMU", "AMD_IOMMU", "VHOST_NET", "VFIO_PCI_DMABUF"],
)  # fmt: skip
def test_what_debian_leaves_out_is_asked_for(option: str) -> None:
    text = (paths.recipes_dir() / CONFIGURATION).read_text()

    assert f"\nCONFIG_{option}=" in text


def test_a_configuration_that_holds_has_nothing_unmet() -> None:
    wanted = "# a remark\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n# CONFIG_D is not set\n"

    assert unmet(wanted, "CONFIG_B=m\nCONFIG_A=y\n# CONFIG_C is not set\nCONFIG_E=y\n") == []


def test_lines_that_do_not_hold_are_told_with_what_is_there() -> None:
    wanted = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n"

    assert unmet(wanted, "# CONFIG_A is not set\nCONFIG_C=y\n") == [
        "CONFIG_A=y; there is # CONFIG_A is not set",
        "CONFIG_B=m; there is no such option",
        "# CONFIG_C is not set; there is CONFIG_C=y",
    ]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("harness.paths.cache_dir", lambda: tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache/ccache"


def test_what_was_compiled_comes_back_to_the_cache(kept: Path, tmp_path: Path) -> None:
    place = tmp_path / "work"
    for name in ("one", "two"):
        with built_kernel.what_was_compiled_before(place):
            (place / name).write_text("object")

    assert sorted(path.name for path in kept.iterdir()) == ["one", "two"]
    assert not place.exists()


def test_a_build_that_fails_keeps_what_it_compiled(kept: Path, tmp_path: Path) -> None:
    place = tmp_path / "work"
    with (
        pytest.raises(ZeroDivisionError),
        built_kernel.what_was_compiled_before(place),
    ):
        (place / "one").write_text("object")
        raise ZeroDivisionError

    assert (kept / "one").is_file()


def test_a_second_build_does_not_disturb_the_first(kept: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with built_kernel.what_was_compiled_before(first):
        (first / "one").write_text("object")
        with built_kernel.what_was_compiled_before(second):
            assert list(second.iterdir()) == []

    assert kept.is_dir()
    assert not first.exists()
    assert not second.exists()

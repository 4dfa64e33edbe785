"""What Linux shows of its IOMMU below debugfs, if it was built to."""

import pytest

from harness.guest.system import System
from harness.host.virtual import VirtualHost
from harness.lab.parts import Parts
from harness.testing import must_fail, skip

OPTION = "CONFIG_INTEL_IOMMU_DEBUGFS=y"
FILES = {
    "iommu_regset", "dmar_translation_struct", "ir_translation_struct", "invalidation_queue",
}  # fmt: skip


def config_of(parts: Parts) -> str:
    """Return the configuration of the host's kernel."""
    if parts.kernel.config is None:
        skip(
            "the host's kernel came without its configuration",
            enabled_by="one of a package (--kernel debian:trixie) or built here (built:7.3)",
        )
    return parts.kernel.config.read_text(encoding="utf-8")


def check_files(system: System, config: str) -> None:
    """The files are there if the kernel was built with them, and only then."""
    found = FILES & set(system.list_directory("/sys/kernel/debug/iommu/intel"))
    expected = FILES if OPTION in config.splitlines() else set()
    assert found == expected, f"{sorted(found)}, but the kernel's configuration says otherwise"


@pytest.mark.rule("VTD-56")
def test_debugfs_has_what_the_kernel_was_built_with(
    virtual_host: VirtualHost, parts: Parts
) -> None:
    """Four files show registers, tables and queue, where CONFIG_INTEL_IOMMU_DEBUGFS is set."""
    check_files(virtual_host, config_of(parts))


@pytest.mark.negative_control("VTD-56")
def test_another_configuration_is_noticed(virtual_host: VirtualHost, parts: Parts) -> None:
    """The same files with the option the other way fail the check."""
    config = config_of(parts)
    other = config.replace(OPTION, "") if OPTION in config else f"{config}\n{OPTION}\n"

    with must_fail():
        check_files(virtual_host, other)

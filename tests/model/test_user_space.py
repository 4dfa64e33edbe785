"""What a node of a driver in user space promises."""

import pytest

from harness.model.user_space import Exposure, exposure_of


@pytest.mark.parametrize("node", ["/dev/vfio/0", "/dev/vfio/17", "/dev/vfio/devices/vfio3"])
def test_nodes_below_an_iommu_are_safe(node: str) -> None:
    """Groups and devices."""
    assert exposure_of(node) is Exposure.MAPPED


@pytest.mark.parametrize(
    "node", ["/dev/uio0", "/dev/vfio/noiommu-0", "/dev/vfio/devices/noiommu-vfio0"]
)
def test_nodes_past_an_iommu_are_unsafe(node: str) -> None:
    """UIO, and vfio without an IOMMU."""
    assert exposure_of(node) is Exposure.ALL


@pytest.mark.parametrize("node", ["/dev/vfio/vfio", "/dev/vfio/", "/dev/uio", "/dev/mem", ""])
def test_other_nodes_promise_nothing(node: str) -> None:
    """The container is no device."""
    with pytest.raises(ValueError, match="is no node"):
        exposure_of(node)

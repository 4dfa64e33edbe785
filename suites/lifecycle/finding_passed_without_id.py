"""A device that is passed open, without an id, ends QEMU by a segmentation fault.

See docs/findings/descriptor-without-id.md. Not collected unless it is named.
"""

import pytest

from harness.host.host import Host
from harness.suite_fixtures import Attempt, Free
from suites.lifecycle.test_iommufd_backend import with_iommufd
from suites.lifecycle.test_passed_descriptor import machine_with, opened, passed

__all__ = ["with_iommufd"]

pytestmark = pytest.mark.usefixtures("with_iommufd")


@pytest.mark.parametrize("given", ["passed", ""], ids=["with-id", "without-id"])
def test_a_passed_device_is_accepted(host: Host, free: Free, attempt: Attempt, given: str) -> None:
    """It is taken, id or not: without one QEMU ends by signal 11."""
    with opened(host, free("nvme")):
        said = attempt(host, machine_with(host, passed(given)))

    assert not said, said

"""A reset of the bus of a function fails though it was done: its port reports no active link.

See docs/findings/port-link-never-active.md. Not collected unless it is named.
"""

import pytest

from harness.errors import CommandFailed
from harness.host.host import Host
from harness.suite_fixtures import Free


@pytest.mark.parametrize("method", ["pm", "bus"])
def test_reset_succeeds(host: Host, free: Free, method: str) -> None:
    """A function alone behind a root port is reset by its power state, and with its bus."""
    bdf = free("e1000e").bdf
    path = f"/sys/bus/pci/devices/{bdf}/reset_method"
    assert method in host.reset_methods(bdf), f"{bdf} has no reset by {method}"
    with host.setting(path, method):
        try:
            host.reset(bdf)
        except CommandFailed as failed:
            pytest.fail(f"reset by {method}: {failed.stderr}")

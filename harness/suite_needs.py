"""What a test may need of the host; where it is not there, the test skips and says what has it.

=================  ==============================================================================
``kvm``            KVM runs the machines of the host
``virtual_host``   the host, with the lab's side of it
``nested_host``    the virtual host that the resident guest runs on
``lab_parts``      the parts of this run, for hosts and machines of the test's own
=================  ==============================================================================
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NoReturn

import pytest

from harness.errors import HostLacks
from harness.host.accelerator import Accel
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.lab.nested import Nested
from harness.lab.parts import Parts
from harness.settings import SETTINGS
from harness.testing import skip

_THE_VIRTUAL_ONE = "--host virtual"


@pytest.fixture
def kvm(host: Host) -> None:
    """KVM runs the machines of the host."""
    if host.accelerator.accel is not Accel.KVM:
        needs_kvm(host, "the test")


def needs_kvm(host: Host, what: str) -> NoReturn:
    """Skip the test, because *what* needs KVM on the host."""
    skip(
        f"{what} needs KVM on the host ({host.accelerator.reason})",
        enabled_by="a host with a working /dev/kvm",
    )


@pytest.fixture(scope="session")
def virtual_host(host: Host) -> VirtualHost:
    """The host, for tests that need the lab's side of it too."""
    if not isinstance(host, VirtualHost):
        skip("looks at the lab's QEMU", enabled_by=_THE_VIRTUAL_ONE)
    return host


@pytest.fixture
def nested_host(nested: Nested) -> VirtualHost:
    """The host of the resident guest, for tests that need the lab's side of it too.

    Not always ``host``: where hosts are saved, the resident guest has one of its own.
    """
    if not isinstance(nested.host, VirtualHost):
        skip("looks at the lab's QEMU", enabled_by=_THE_VIRTUAL_ONE)
    return nested.host


@pytest.fixture(scope="session")
def lab_parts(parts: Parts) -> Parts:
    """The parts of this run, for tests that open hosts or machines of their own with them."""
    if parts.settings.host != "virtual":
        skip("its machines are the lab's", enabled_by=_THE_VIRTUAL_ONE)
    return parts


def needs_subject(item: pytest.Item) -> bool:
    """Say whether a test needs what a run finds before its first test: builds, kernels, a host.

    On a host that is there already only those of the x86 suites do: one of another
    architecture runs none of our builds.
    """
    is_virtual = item.config.stash[SETTINGS].host == "virtual"
    return ("parts" if is_virtual else "host") in getattr(item, "fixturenames", ())


@contextlib.contextmanager
def skipping_what_the_host_lacks() -> Iterator[None]:
    """Turn "this host has no such device" and "it has no IOMMU" into a skip with that reason.

    On a virtual host neither can hide a broken lab: see `suite_fixtures.device_names`.
    """
    try:
        yield
    except HostLacks as lack:
        pytest.skip(f"{lack.summary}: {lack.hint}")

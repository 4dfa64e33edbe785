"""A test that needs what is not there skips, and says who has it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from harness.errors import HostLacks, MissingDevice, NoIommu
from harness.host.host import Host
from harness.settings import SETTINGS, Settings
from harness.suite_needs import needs_kvm, needs_subject, skipping_what_the_host_lacks


@pytest.mark.parametrize("error", [MissingDevice, NoIommu])
def test_what_the_host_lacks_is_a_skip_with_the_hint(error: type[HostLacks]) -> None:
    # What skips a test is no Exception.
    with (
        pytest.raises(BaseException, match=r"^no igb: --l0-qemu debian:trixie has$"),
        skipping_what_the_host_lacks(),
    ):
        raise error("no igb", hint="--l0-qemu debian:trixie has")


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), skipping_what_the_host_lacks():
        raise ZeroDivisionError


def test_without_kvm_the_reason_is_told() -> None:
    host = cast(Host, SimpleNamespace(accelerator=SimpleNamespace(reason="no /dev/kvm")))
    said = r"^the test needs KVM on the host \(no /dev/kvm\): a host with a working /dev/kvm would"

    with pytest.raises(BaseException, match=said):
        needs_kvm(host, "the test")


@pytest.mark.parametrize(
    ("host", "fixtures", "needs"),
    [
        ("virtual", ("parts", "evidence"), True),
        ("virtual", ("evidence",), False),
        ("ssh://lab", ("parts", "host"), True),
        ("ssh://lab", ("parts", "leased"), False),
    ],
)
def test_builds_and_hosts_are_needed_by_those_who_ask_for_them(
    host: str, fixtures: tuple[str, ...], needs: bool
) -> None:
    config = SimpleNamespace(stash={SETTINGS: Settings(host=host)})
    item = SimpleNamespace(config=config, fixturenames=fixtures)

    assert needs_subject(cast(pytest.Item, item)) is needs

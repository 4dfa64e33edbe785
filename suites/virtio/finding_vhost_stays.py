"""A vhost device stays open when its QEMU is gone, if that polled it by io_uring.

Not part of the suites, as it costs the host a device: docs/findings/vhost-stays-open.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import WaitTimeout
from harness.host.host import Host
from harness.wait import wait_until
from suites.virtio.conftest import Forget, able, answers_of, talk_spec
from suites.virtio.dialogue import VSOCK_TALK

PATIENCE = 15
"""Seconds; it takes none."""
_SWITCH = "/proc/sys/kernel/io_uring_disabled"
_USERS = "/sys/module/vhost_vsock/refcnt"


@pytest.fixture(params=["io_uring", "no io_uring"])
def ring(request: pytest.FixtureRequest, host: Host) -> Iterator[str]:
    """Whether programs of the host may have it."""
    with host.setting(_SWITCH, "0" if request.param == "io_uring" else "2"):
        yield request.param


@pytest.mark.parametrize("platform", [False, True], ids=["bypassing", "translated"])
@pytest.mark.parametrize("stop", [True, False], ids=["stopped", "running"])
def test_vhost_goes_with_its_machine(
    host: Host, evidence: Path, ring: str, stop: bool, platform: bool
) -> None:
    """Nobody has the device open when its machine has ended."""
    talk = VSOCK_TALK.apart(100 + 4 * stop + 2 * platform + (ring == "io_uring"))
    spec = talk_spec(able(host, talk), talk, ats=False, platform=platform)
    before = host.read_text(_USERS)

    with host.launch(spec, evidence=evidence) as machine:
        answers_of(machine, talk, Forget.UNIT, ats=False, platform=platform, stop=stop)

    try:
        wait_until("nobody uses vhost_vsock", lambda: host.read_text(_USERS) == before,
                   timeout=PATIENCE)  # fmt: skip
    except WaitTimeout:
        open_in = host.run("ls -l /proc/[0-9]*/fd 2>/dev/null | grep vhost-vsock", check=False)
        pytest.fail(f"still in use after {PATIENCE} s; open in: {open_in.stdout or 'no process'}")

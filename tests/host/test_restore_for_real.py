"""A killed run on a real kernel: its devices come back with ``trapline restore``.

The host is a virtual one started by hand, reached over SSH as a physical host would be.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.commands.host import HandStarted, started
from harness.commands.restore import restore
from harness.host.virtual_spec import TEST_DEVICES
from harness.lab.doctor import is_complete, offline_parts
from harness.settings import Settings

CACHED = is_complete(offline_parts(Settings()))

# What a run does up to its first test, then nothing: it is killed there.
RUNNER = """
import sys
from pathlib import Path
from harness.guest.keys import make_key
from harness.lab.doctor import offline_parts
from harness.lab.hosts import open_host
from harness.lab.nested import prepare
from harness.settings import Settings
place = Path(sys.argv[2])
host = open_host(
    offline_parts(Settings(host=sys.argv[1])), key=make_key(place), evidence=place
)
prepare(host, ["nvme", "e1000e"])
print("bound", flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(
    not CACHED, reason="the images are not in the cache: trapline images build"
)


@pytest.fixture
def real() -> Iterator[HandStarted]:
    """A host whose devices have their own drivers; nothing of it is left at the end."""
    with started(Settings()) as host:
        host.host.run(["modprobe", "-a", "nvme", "e1000e"])
        directories = [host.directory, Path(host.host.machine.sockets.directory)]
        assert all(directory.is_dir() for directory in directories)
        yield host
    assert not any(directory.exists() for directory in directories)


def test_devices_of_a_killed_run_come_back(
    real: HandStarted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAPLINE_STATE", str(tmp_path / "state"))
    assert drivers_of(real) == {"nvme": "nvme", "e1000e": "e1000e"}
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, real.url, tmp_path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ,
    ) as runner:  # fmt: skip
        assert runner.stdout is not None and runner.stdout.readline() == b"bound\n"
        assert drivers_of(real) == {"nvme": "vfio-pci", "e1000e": "vfio-pci"}
        busy = restore()
        runner.kill()
        runner.wait()

    report = restore()

    assert not busy.is_complete and all("left alone" in line for line in busy.lines())
    assert report.is_complete, report.lines()
    assert len(report.done) == 2
    assert drivers_of(real) == {"nvme": "nvme", "e1000e": "e1000e"}
    assert restore().lines() == ["nothing is pending"]


def drivers_of(real: HandStarted) -> dict[str, str | None]:
    """Return test device to driver, as the lab's own connection sees it."""
    names = {TEST_DEVICES[name].id: name for name in ("nvme", "e1000e")}
    return {names[f.id]: f.driver for f in real.host.functions() if f.id in names}

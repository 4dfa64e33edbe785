"""What one host does is not found by another that goes on from the same state.

Hosts that dirty everything they can and hosts that look for it come in a random order, side by
side where workers are. ``TRAPLINE_ISOLATION_ROUNDS=200`` makes a proof of it,
``TRAPLINE_ISOLATION_SEED`` repeats an order.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import paths
from harness.guest.keys import RunKey, make_key
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import TEST_DEVICES
from harness.lab.hosts import DISK_SEED, NVME_BYTES, open_virtual
from harness.lab.parts import Parts
from harness.lab.states import states_store
from harness.model.difference import first_difference
from harness.model.pattern import pattern
from harness.settings import Settings

ROUNDS = int(os.environ.get("TRAPLINE_ISOLATION_ROUNDS", "4"))
SEED = os.environ.get("TRAPLINE_ISOLATION_SEED", "trapline")
MARK = "dirtied-by-trapline"

ORDER = ["dirties", "looks"] * ((ROUNDS + 1) // 2)
random.Random(SEED).shuffle(ORDER)

DIRTY = f"""
set -e
for place in /etc /usr/bin /root /tmp /run /dev/shm /var/log /opt; do
  echo {MARK} > $place/{MARK}; done
echo {MARK} >> /etc/passwd
rm /usr/bin/lspci
hostname {MARK}
echo 99 > /proc/sys/vm/swappiness
echo {MARK} > /dev/kmsg
echo '{MARK} {MARK}' > /proc/sys/kernel/core_pattern
date -s '2001-01-01 00:00' > /dev/null
echo vfio-pci > /sys/bus/pci/devices/{{igb}}/driver_override
modprobe igb nvme
echo {{igb}} > /sys/bus/pci/drivers_probe
modprobe nvme
echo {{nvme}} > /sys/bus/pci/drivers_probe || :
probe await '/sys/bus/pci/devices/{{nvme}}/nvme/nvme*/nvme*n1' > /dev/null
yes {MARK} | head -c {NVME_BYTES} | dd of=/dev/nvme0n1 bs=1M conv=fsync 2> /dev/null
echo 1 > /sys/bus/pci/devices/{{e1000e}}/remove
yes {MARK} | head -c 40000000 > /dev/shm/memory
setsid sleep 100000 < /dev/null > /dev/null 2>&1 &
"""

LOOK = f"""
find / -xdev -name '*{MARK}*' 2> /dev/null
ls -A /tmp; ls -A /dev/shm
grep {MARK} /etc/passwd /proc/sys/kernel/hostname /proc/sys/kernel/core_pattern
dmesg | grep {MARK}
[ -e /usr/bin/lspci ] || echo no lspci
[ "$(cat /proc/sys/vm/swappiness)" = 99 ] && echo swappiness
ps | grep '[s]leep 100000'
for d in {{igb}} {{nvme}} {{e1000e}}; do
  [ -e /sys/bus/pci/devices/$d ] || echo $d is gone
  [ -e /sys/bus/pci/devices/$d/driver ] && echo $d has a driver
  grep -v '(null)' /sys/bus/pci/devices/$d/driver_override
done
lsmod | grep -E '^(igb|nvme) '
:
"""

TRACES = ("no lspci", "swappiness", "sleep 100000", "has a driver", "is gone", "igb", "vfio-pci")

pytestmark = pytest.mark.skipif(
    not (paths.cache_dir() / "images" / "host").is_dir(),
    reason="the cache has no host: 'trapline images build' makes it",
)


@pytest.fixture(scope="session")
def parts() -> Parts:
    return Parts(Settings())


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> RunKey:
    return make_key(tmp_path_factory.mktemp("key"))


@pytest.fixture
def fresh(parts: Parts, key: RunKey, tmp_path: Path) -> Iterator[VirtualHost]:
    """A host that went on from the state that all of them share."""
    host = open_virtual(parts, key=key, evidence=tmp_path, saved=True)
    try:
        assert (tmp_path / "boot").is_dir(), "it did not go on from a saved state"
        yield host
    finally:
        host.close()


def places(host: VirtualHost) -> dict[str, str]:
    """Where the test devices are, by name."""
    return {name: str(host.find_one(device.id).bdf) for name, device in TEST_DEVICES.items()}


@pytest.mark.parametrize("what", [pytest.param(w, id=f"{w}-{n}") for n, w in enumerate(ORDER)])
def test_hosts_do_not_find_what_others_did(fresh: VirtualHost, what: str, tmp_path: Path) -> None:
    disk = tmp_path / "nvme.img"
    if what == "dirties":
        where = places(fresh)
        fresh.run(DIRTY.format(**where), timeout=120)
        # The look is no blind one: here it finds all of it.
        found = fresh.run(LOOK.format(**where)).stdout
        assert found.count(MARK) >= 12 and all(trace in found for trace in TRACES), found
        assert disk.read_bytes().startswith(MARK.encode())
        return
    found = fresh.run(LOOK.format(**places(fresh))).stdout
    assert found == ""
    assert first_difference(disk.read_bytes(), pattern(DISK_SEED, 0, NVME_BYTES)) is None
    assert abs(float(fresh.run("date +%s").stdout) - time.time()) < 60


def test_the_states_are_as_they_were_saved(fresh: VirtualHost) -> None:
    """Their files have the hashes of their making, while hosts run on them."""
    store = states_store()
    memory = fresh.machine.spec.objects[0]
    used = [one for one in store.entries() if f"mem-path={one.dir}/memory" in memory]

    assert len(used) == 1
    assert store.check(used[0], full=True) == []

"""Saved states that are damaged, foreign, removed, cut off or without room, on a real QEMU.

One small guest is saved once for all workers of this run, by two processes at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness import paths
from harness.errors import LaunchFailed, MachineDied
from harness.guest.keys import RunKey, make_key
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import nested_spec
from harness.images.cache import Artifact, Store
from harness.lab import states
from harness.lab.hosts import open_virtual
from harness.lab.parts import Parts
from harness.lab.states import Facts, Rung, States
from harness.machine.command import MachineSpec
from harness.machine.saved_state import Method, SavedState, StateBroken, save
from harness.settings import Settings

OLD = "7.2"
CREATOR = """
import sys
from pathlib import Path
from harness.host.virtual_spec import nested_spec
from harness.lab.parts import Parts
from harness.lab.states import Rung, States
from harness.machine.saved_state import Method
from harness.settings import Settings

parts = Parts(Settings())
kernel, initrd, root = sys.argv[1:]
rung = Rung(nested_spec(accel="tcg,thread=multi", kernel=kernel, initrd=initrd))
state, facts = States(parts, Path(root)).obtain(rung, Method.PRIVATE)
print(state.directory, facts.made)
"""


def small(parts: Parts) -> MachineSpec:
    """Return the machine that is saved: a guest as it is nested elsewhere."""
    kernel, initrd = os.fspath(parts.guest.vmlinuz), os.fspath(parts.guest.initrd)
    return nested_spec(accel="tcg,thread=multi", kernel=kernel, initrd=initrd)


@dataclass(frozen=True)
class Made:
    """The state that all tests here share, and what its creators said."""

    root: Path
    state: SavedState
    said: list[list[str]]

    @property
    def artifact(self) -> Artifact:
        (found,) = (one for one in Store(self.root).entries() if one.dir == self.state.directory)
        return found


@pytest.fixture(scope="session")
def made(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Made:
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "states"
    words = [parts.guest.vmlinuz, parts.guest.initrd, root]
    creators = [
        subprocess.Popen(
            [sys.executable, "-c", CREATOR, *words], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [creator.communicate(timeout=300)[0].split() for creator in creators]
    assert [creator.returncode for creator in creators] == [0, 0]
    return Made(root, SavedState(Path(said[0][0]), Method.PRIVATE), said)


@pytest.fixture
def key(tmp_path: Path) -> RunKey:
    return make_key(tmp_path)


GoOn = Callable[..., VirtualHost]


@pytest.fixture
def go_on_with(parts: Parts, key: RunKey, run_time: Path, tmp_path: Path) -> Iterator[GoOn]:
    """Go on from a state; what runs then is ended with the test, and leaves nothing."""
    numbers = itertools.count()  # one step of it is atomic
    with contextlib.ExitStack() as stack:

        def start(state: SavedState, *, spec: MachineSpec | None = None, qemu: Any = None) -> Any:
            evidence = tmp_path / f"clone-{next(numbers)}"
            evidence.mkdir()
            host = VirtualHost.restore(
                spec or small(parts), state, l0_qemu=qemu or parts.l0_qemu, key=key,
                qemu=parts.placed_qemu(), guest=parts.guest_files(key), evidence=evidence,
            )  # fmt: skip
            stack.callback(host.close)
            return host

        yield start
    assert list(run_time.iterdir()) == []


def copy(state: SavedState, place: Path) -> SavedState:
    """Copy a state, holes kept, so that it can be harmed."""
    words: list[str | Path] = ["cp", "--recursive", "--sparse=always", state.directory, place]
    subprocess.run(words, check=True)
    subprocess.run(["chmod", "-R", "u+w", place], check=True)
    return SavedState(place, state.method)


def flip(path: Path, at: float = 0.5) -> None:
    """Change one bit where there is something; size and time of the change stay."""
    status = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(os.lseek(file.fileno(), int(status.st_size * at), os.SEEK_DATA))
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# what is right


def test_of_two_creators_at_once_one_makes_it_and_both_use_it(made: Made) -> None:
    assert made.said[0] == made.said[1]
    assert len(list((made.root / "host").iterdir())) == 1
    assert (made.state.directory / "evidence" / "console.log").exists()


LOOK = """
cat /proc/sys/kernel/random/boot_id /etc/machine-id
md5sum < /run/trapline/hostkey
md5sum < /root/.ssh/authorized_keys
head -c 32 /dev/urandom | md5sum
cat /proc/sys/kernel/random/uuid
"""


def test_systems_that_were_saved_as_one_are_different_and_do_not_see_each_other(
    made: Made, go_on_with: GoOn
) -> None:
    with ThreadPoolExecutor(3) as pool:
        clones = list(pool.map(lambda _: go_on_with(made.state), range(3)))
        seen = [host.run(LOOK).stdout.split() for host in clones]
        boot_ids, machine_ids, host_keys, _, authorized, _, *random = zip(*seen, strict=True)
        for one in (boot_ids, machine_ids, host_keys, random[0], random[2]):
            assert len(set(one)) == 3, one
        assert [one.replace("-", "") for one in boot_ids] == list(machine_ids)
        assert len(set(authorized)) == 1  # all were told the same who may log in
        for host in clones:
            before = time.time()
            there = int(host.run("date +%s").stdout)
            assert before - 2 <= there <= time.time() + 2

        def dirty(number: int) -> None:
            clones[number].run(
                f"echo {number} > /tmp/mine; hostname clone-{number};"
                f" dd if=/dev/zero of=/tmp/big bs=1M count=20 2>/dev/null;"
                f" echo {number} > /proc/sys/vm/swappiness"
            )

        list(pool.map(dirty, range(3)))
    look = "cat /tmp/mine; hostname; cat /proc/sys/vm/swappiness"
    assert [host.run(look).stdout.split() for host in clones] == [
        [f"{n}", f"clone-{n}", f"{n}"] for n in range(3)
    ]

    later = go_on_with(made.state)

    assert later.run("ls /tmp; hostname; cat /proc/sys/vm/swappiness").stdout.split() == [
        "trapline-guest", "60",
    ]  # fmt: skip
    assert Store(made.root).check(made.artifact, full=True) == []


def test_a_state_that_cannot_be_written_is_gone_on_with(
    made: Made, go_on_with: GoOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    host = go_on_with(made.state)

    assert "readonly=on,rom=off" in (host.machine.evidence / "qemu.cmd").read_text()
    assert host.run("echo it writes > /tmp/a; cat /tmp/a").stdout == "it writes\n"


def test_a_state_that_is_removed_while_it_is_used_lives_as_long_as_who_uses_it(
    made: Made, go_on_with: GoOn, tmp_path: Path
) -> None:
    state = copy(made.state, tmp_path / "copy")
    host = go_on_with(state)
    shutil.rmtree(state.directory)

    # Memory that was not read yet, and memory that was not written yet.
    read = host.run("cat /bin/busybox /lib/modules/*/modules.dep | md5sum").stdout
    host.run("dd if=/dev/urandom of=/tmp/big bs=1M count=40 2>/dev/null; rm /tmp/big")

    other = go_on_with(made.state)
    assert other.run("cat /bin/busybox /lib/modules/*/modules.dep | md5sum").stdout == read
    host.machine.check()


def with_own_memory(spec: MachineSpec) -> MachineSpec:
    """Return *spec* with memory under the name that a private state gives it."""
    return replace(
        spec,
        machine_options={**spec.machine_options, "memory-backend": "memory"},
        objects=(f"memory-backend-ram,id=memory,size={spec.memory_mib}M",),
    )


def save_again(host: VirtualHost, state: SavedState) -> None:
    """Save what goes on from a private state in another way."""
    host.transport.close()
    ignore = {"capability": "x-ignore-shared", "state": False}
    host.machine.qmp.execute("migrate-set-capabilities", {"capabilities": [ignore]})
    save(host.machine.qmp, state, guard=host.machine.check_alive)


@pytest.mark.parametrize("method", [Method.PLAIN, Method.MAPPED])
def test_the_other_ways_keep_memory_as_well(
    made: Made, parts: Parts, go_on_with: GoOn, tmp_path: Path, method: Method
) -> None:
    first = go_on_with(made.state)
    first.run("head -c 3000000 /dev/urandom > /tmp/noise; sync")
    noise = first.run("md5sum < /tmp/noise; cat /etc/machine-id").stdout.split()
    state = SavedState(tmp_path, method)
    save_again(first, state)

    again = go_on_with(state, spec=with_own_memory(small(parts)))

    seen = again.run("md5sum < /tmp/noise; cat /etc/machine-id").stdout.split()
    assert seen[0] == noise[0]
    assert seen[2] != noise[2]
    assert not state.memory.exists()


def old_qemu_is_there() -> bool:
    """Say whether the cache has a Debian build of the oldest QEMU that can be the lab's."""
    for record in (paths.cache_dir() / "images" / "qemu").glob("*/manifest.json"):
        version = json.loads(record.read_text())["packages"].get("qemu-system-x86", "")
        if version.partition(":")[2].startswith(OLD):
            return True
    return False


@pytest.mark.skipif(not old_qemu_is_there(), reason=f"the cache has no QEMU {OLD}")
def test_an_old_qemu_saves_and_goes_on_through_a_pipe(
    go_on_with: GoOn, made: Made, tmp_path: Path
) -> None:
    parts = Parts(Settings(l0_qemu="debian:bookworm"))
    spec = small(parts)
    state, _ = States(parts, tmp_path / "it's").obtain(Rung(spec), Method.PRIVATE)

    host = go_on_with(state, spec=spec, qemu=parts.l0_qemu)

    assert host.run("cat /etc/machine-id").stdout.strip()
    said = (host.machine.evidence / "qmp.jsonl").read_text()
    assert "exec:cat '" in said
    with pytest.raises(StateBroken, match="could not restore"):
        go_on_with(made.state, spec=spec, qemu=parts.l0_qemu)


# what is wrong


# Not nearer to the end: there is a description for people, which QEMU does not miss.
@pytest.mark.parametrize("part", [0, 0.01, 0.4])
def test_devices_that_are_cut_off_are_refused(
    made: Made, go_on_with: GoOn, tmp_path: Path, part: float
) -> None:
    state = copy(made.state, tmp_path / "copy")
    os.truncate(state.devices, int(state.devices.stat().st_size * part))

    with pytest.raises(StateBroken, match="could not restore its state"):
        go_on_with(state)


def test_memory_that_is_cut_off_is_refused(made: Made, go_on_with: GoOn, tmp_path: Path) -> None:
    state = copy(made.state, tmp_path / "copy")
    os.truncate(state.memory, 100 << 20)

    with pytest.raises(LaunchFailed, match="backing store size 0x6400000"):
        go_on_with(state)


def test_a_state_of_another_machine_is_refused(made: Made, parts: Parts, go_on_with: GoOn) -> None:
    with pytest.raises(StateBroken, match=r"[Mm]achine type received is(.|\n)*pc-q35-7\.2"):
        go_on_with(made.state, spec=replace(small(parts), machine="pc-q35-7.2"))


def test_a_state_that_is_gone_is_told(made: Made, go_on_with: GoOn, tmp_path: Path) -> None:
    with pytest.raises(LaunchFailed, match="No such file or directory"):
        go_on_with(SavedState(tmp_path / "gone", Method.PRIVATE))


HARMS: dict[str, Callable[[SavedState], object]] = {
    "a bit of the memory": lambda state: flip(state.memory),
    "a bit of the devices": lambda state: flip(state.devices),
    "memory cut off": lambda state: os.truncate(state.memory, 1 << 20),
    "devices cut off": lambda state: os.truncate(state.devices, 1000),
    "no devices": lambda state: state.devices.unlink(),
}


@pytest.mark.parametrize("harm", HARMS)
def test_harm_is_seen_before_a_state_is_used(
    made: Made, parts: Parts, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = made.artifact.key
    place = tmp_path / "states" / "host"
    place.mkdir(parents=True)
    words: list[str | Path] = [
        "cp",
        "--archive",
        "--sparse=always",
        made.state.directory.parent,
        place,
    ]
    subprocess.run(words, check=True)
    copied = States(parts, tmp_path / "states")
    assert copied._find("host", key) is not None
    state = SavedState(place / key / "files", Method.PRIVATE)
    state.directory.chmod(0o755)

    HARMS[harm](state)

    assert copied._find("host", key) is None
    assert key in caplog.text and "made again" in caplog.text


def test_a_state_under_the_key_of_another_is_not_believed(
    made: Made, parts: Parts, tmp_path: Path
) -> None:
    place = tmp_path / "states" / "host"
    place.mkdir(parents=True)
    words: list[str | Path] = [
        "cp",
        "--archive",
        "--sparse=always",
        made.state.directory.parent,
        place / ("0" * 20),
    ]
    subprocess.run(words, check=True)

    assert States(parts, tmp_path / "states")._find("host", "0" * 20) is None


# no room


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tiny", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@needs_root
def test_a_disk_that_fills_while_the_system_boots_is_told_and_leaves_nothing(
    tiny: Path, parts: Parts, run_time: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung = Rung(small(parts))
    with pytest.raises(StateBroken, match=r"2\d MiB free, 256 MiB may be needed"):
        States(parts, tiny).obtain(rung, Method.PRIVATE)

    monkeypatch.setattr(States, "_check_space", lambda *_: None)  # others filled it since
    with pytest.raises(MachineDied, match="SIGBUS"):
        States(parts, tiny).obtain(rung, Method.PRIVATE)

    assert Store(tiny).entries() == []
    assert list((tiny / "tmp").iterdir()) == []


@needs_root
@pytest.mark.parametrize("method", [Method.PLAIN, Method.MAPPED])
def test_a_disk_that_fills_while_a_state_is_saved_is_told(
    made: Made, tiny: Path, go_on_with: GoOn, method: Method
) -> None:
    host = go_on_with(made.state)

    with pytest.raises(StateBroken, match=r"could not save its state"):
        save_again(host, SavedState(tiny, method))


# all of it


def test_a_state_that_qemu_does_not_take_is_made_again_and_the_host_opened(
    parts: Parts, key: RunKey, run_time: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    root = tmp_path / "states"
    monkeypatch.setattr(states, "states_store", lambda _=None: Store(root))
    real = States.obtain
    forged: list[str] = []

    def forge(self: States, rung: Rung, method: Method) -> tuple[SavedState, Facts]:
        """Put a state there, once, that is whole as far as any hash tells, and useless."""

        def make(work: Path) -> None:
            (work / "evidence").mkdir()
            (work / "devices").write_bytes(b"\0" * 500_000)
            (work / "memory").touch()
            os.truncate(work / "memory", rung.host.memory_mib << 20)
            facts = Facts(method.value, made="forged")
            (work / "facts.json").write_text(json.dumps(dataclasses.asdict(facts)))

        if not forged:
            forged.append(self._key(rung, method))
            self.store.obtain(forged[0], make, "host")
        return real(self, rung, method)

    monkeypatch.setattr(States, "obtain", forge)
    with caplog.at_level(logging.WARNING):
        host = open_virtual(parts, key=key, evidence=tmp_path, saved=True)
    with contextlib.closing(host):
        assert host.run("uname -r").stdout.strip() == parts.kernel.release
        assert len(host.functions()) > len(parts.devices)

    (artifact,) = Store(root).entries()
    assert artifact.key == forged[0]
    assert "forged" not in (artifact.dir / "facts.json").read_text()
    assert f"the saved state host {forged[0]} is made again" in caplog.text
    assert "could not restore its state" in caplog.text

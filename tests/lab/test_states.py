"""Saved states as files: their keys, what is believed of them, which of them go."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ConfigError, ImageError
from harness.images.cache import Artifact, _stamp_of
from harness.images.manifest import list_tree, write_json
from harness.lab import states as module
from harness.lab.parts import Parts
from harness.lab.states import Facts, Rung, States, bytes_of, in_excess, last_use
from harness.machine.command import Boot, Disk, MachineSpec
from harness.machine.saved_state import Method, SavedState, StateBroken

PRIVATE = Method.PRIVATE


def parts_of(images: Path, **changes: Any) -> Any:
    """Return what a key is made of, some of it changed."""
    lab = SimpleNamespace(
        identity="bits", argv_prefix=(f"{images}/qemu/k1/bin/qemu", "-L", "x"), env={"A": "1"},
        label="debian:trixie", version="10.0",
    )  # fmt: skip
    placed = SimpleNamespace(
        argv_prefix=("/opt/qemu/bin/qemu",), env={}, label="debian:trixie", version="10.0"
    )
    made = SimpleNamespace(
        images=SimpleNamespace(workshop=SimpleNamespace(store=SimpleNamespace(root=images))),
        l0_qemu=lab, qemu=placed, placed_qemu=lambda: placed,
        kernel=SimpleNamespace(release="6.12"), guest=SimpleNamespace(release="6.12"),
    )  # fmt: skip
    for name, value in changes.items():
        owner, _, field = name.partition("__")
        setattr(lab if owner == "lab" else placed, field, value)
    return made


def host_of(images: Path) -> MachineSpec:
    return MachineSpec(
        "host",
        memory_mib=1,
        disks=(Disk("root", f"{images}/host/k2/files/root.erofs", read_only=True),),
        boot=Boot(f"{images}/kernel/k3/files/vmlinuz", f"{images}/i/k4/files/initrd", "quiet"),
    )


NESTED = MachineSpec("nested", boot=Boot("/opt/guest/vmlinuz", "/opt/guest/initrd", "quiet"))


class FakeStates(States):
    """States whose making takes no QEMU; what was made is counted."""

    made = 0

    def _make(self, rung: Rung, method: Method, work: Path) -> None:
        self.made += 1
        (work / "memory").write_bytes(b"memory" * 4096)
        (work / "devices").write_bytes(b"devices")
        (work / "evidence").mkdir()
        (work / "evidence" / "console.log").write_text("ready")
        facts = Facts(method.value, made=f"{id(self)}-{self.made}")
        (work / "facts.json").write_text(json.dumps(dataclasses.asdict(facts)))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def states(tmp_path: Path, images: Path) -> FakeStates:
    return FakeStates(parts_of(images), tmp_path / "states")


@pytest.fixture
def rung(images: Path) -> Rung:
    return Rung(host_of(images))


def key(parts: Any, rung: Rung, method: Method = PRIVATE) -> str:
    return States(cast(Parts, parts), Path("/nowhere"))._key(rung, method)


# keys


def boot_of(rung: Rung, **changes: str) -> Rung:
    assert rung.host.boot is not None
    return replace(rung, host=replace(rung.host, boot=replace(rung.host.boot, **changes)))


def machine_of(rung: Rung, **changes: Any) -> Rung:
    return replace(rung, host=replace(rung.host, **changes))


LAB: dict[str, dict[str, Any]] = {
    "bits of the lab's QEMU": {"lab__identity": "other"},
    "words of the lab's QEMU": {"lab__argv_prefix": ("qemu",)},
    "variables of the lab's QEMU": {"lab__env": {"A": "2"}},
    "QEMU under test": {"placed__argv_prefix": ("qemu",)},
}
RUNGS: dict[str, Callable[[Path, Rung], Rung]] = {
    "memory": lambda i, r: machine_of(r, memory_mib=2),
    "processor": lambda i, r: machine_of(r, cpu="x"),
    "accelerator": lambda i, r: machine_of(r, accel="kvm"),
    "root": lambda i, r: machine_of(r, disks=(Disk("root", f"{i}/host/k9/files/root.erofs"),)),
    "kernel line": lambda i, r: boot_of(r, append="loud"),
    "kernel": lambda i, r: boot_of(r, kernel=f"{i}/kernel/k9/files/vmlinuz"),
    "first files": lambda i, r: boot_of(r, initrd=f"{i}/i/k9/files/initrd"),
    "no guest": lambda i, r: Rung(r.host),
    "guest": lambda i, r: Rung(r.host, replace(NESTED, boot=Boot("/opt/guest/vmlinuz"))),
}


@pytest.mark.parametrize("change", LAB)
def test_every_qemu_is_in_the_key(images: Path, change: str) -> None:
    rung = Rung(host_of(images), NESTED)

    assert key(parts_of(images, **LAB[change]), rung) != key(parts_of(images), rung)


def test_the_way_is_in_the_key(images: Path, rung: Rung) -> None:
    assert len({key(parts_of(images), rung, method) for method in Method}) == len(Method)


@pytest.mark.parametrize("change", RUNGS)
def test_whatever_shapes_a_state_is_in_its_key(images: Path, change: str) -> None:
    rung = Rung(host_of(images), NESTED)
    changed = RUNGS[change](images, rung)

    assert key(parts_of(images), changed) != key(parts_of(images), rung)


def test_a_key_does_not_tell_where_the_images_lie(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "another place"

    assert key(parts_of(one), Rung(host_of(one), NESTED)) == key(
        parts_of(other), Rung(host_of(other), NESTED)
    )


def test_names_for_people_are_not_in_a_key(images: Path, rung: Rung) -> None:
    parts = parts_of(images, lab__label="/home/user/build", placed__version="10.0.1")

    assert key(parts, rung) == key(parts_of(images), rung)


def test_a_file_outside_the_store_counts_by_what_is_in_it(tmp_path: Path, images: Path) -> None:
    kernel = tmp_path / "bzImage"
    kernel.write_text("one")
    rung = boot_of(Rung(host_of(images)), kernel=os.fspath(kernel))
    before = key(parts_of(images), rung)

    os.utime(kernel, (1, 1))
    assert key(parts_of(images), rung) == before

    kernel.write_text("two")
    assert key(parts_of(images), rung) != before


def test_this_computer_counts_only_where_it_runs_the_code(
    images: Path, rung: Rung, monkeypatch: pytest.MonkeyPatch
) -> None:
    kvm = Rung(replace(rung.host, accel="kvm"))
    emulated, executed = key(parts_of(images), rung), key(parts_of(images), kvm)

    monkeypatch.setattr(module, "_this_processor", lambda: "another one")

    assert key(parts_of(images), rung) == emulated
    assert key(parts_of(images), kvm) != executed


# what is believed


def test_a_state_is_made_once_and_found_then(states: FakeStates, rung: Rung) -> None:
    first = states.obtain(rung, PRIVATE)

    assert states.obtain(rung, PRIVATE) == first
    assert states.made == 1
    assert first[0].memory.read_bytes().startswith(b"memory")
    assert not any(path.stat().st_mode & 0o222 for path in first[0].directory.rglob("*"))


def test_ways_and_rungs_and_roots_do_not_know_each_other(
    states: FakeStates, rung: Rung, images: Path, tmp_path: Path
) -> None:
    other = FakeStates(parts_of(images), tmp_path / "other")

    found = [
        states.obtain(rung, PRIVATE),
        states.obtain(rung, Method.PLAIN),
        states.obtain(Rung(rung.host, NESTED), PRIVATE),
        other.obtain(rung, PRIVATE),
    ]

    assert len({state.directory for state, _ in found}) == 4
    assert (states.made, other.made) == (3, 1)


def rewrite(path: Path, data: bytes) -> None:
    """Change a file as if nobody had: size and times are what they were."""
    status = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rot(path: Path, data: bytes) -> None:
    """Change a file of a state as a bad disk does: nothing but its bytes shows it."""
    rewrite(path, data)
    state = SavedState(path.parent, PRIVATE)
    write_json(state.directory.parent / "stamp.json", _stamp_of(list_tree(state.directory)))


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda s: os.truncate(s.memory, 100), id="memory cut off"),
        pytest.param(lambda s: rewrite(s.memory, b"Memory" * 4096), id="a bit of memory"),
        pytest.param(lambda s: os.truncate(s.devices, 3), id="devices cut off"),
        pytest.param(lambda s: rewrite(s.devices, b"devicez"), id="a bit of the devices"),
        pytest.param(
            lambda s: rot(s.devices, b"devicez"), id="devices of a bad disk"
        ),
        pytest.param(
            lambda s: rot(s.directory / "facts.json", b"{}"), id="record"
        ),
        pytest.param(lambda s: (s.directory.chmod(0o755), s.memory.unlink()), id="no memory"),
        pytest.param(lambda s: shutil.copy("/dev/null", s.directory.parent / "manifest.json"),
                     id="manifest"),
    ],
)  # fmt: skip
def test_a_damaged_state_is_named_and_made_again(
    states: FakeStates,
    rung: Rung,
    harm: Callable[[SavedState], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    state, facts = states.obtain(rung, PRIVATE)
    harm(state)

    with caplog.at_level(logging.WARNING):
        again, new = states.obtain(rung, PRIVATE)

    assert states.made == 2
    assert new.made != facts.made
    assert again.devices.read_bytes() == b"devices"
    assert state.directory.parent.name in caplog.text and "made again" in caplog.text


def test_facts_of_a_trapline_that_kept_others_are_no_facts(
    states: FakeStates, rung: Rung, tmp_path: Path
) -> None:
    def make(rung: Rung, method: Method, work: Path) -> None:
        (work / "facts.json").write_text(json.dumps({"method": "private", "colour": "red"}))

    cast(Any, states)._make = make
    with pytest.raises(StateBroken, match="record of a saved state cannot be read"):
        states.obtain(rung, PRIVATE)
    del cast(Any, states)._make

    assert states.obtain(rung, PRIVATE)[1].method == "private"


def test_a_state_of_a_read_only_place_is_used(states: FakeStates, rung: Rung) -> None:
    state, _ = states.obtain(rung, PRIVATE)
    place = state.directory.parent
    (place / "used").unlink()
    place.chmod(0o555)

    assert states.obtain(rung, PRIVATE)[0] == state


def test_a_discarded_state_is_made_again_and_the_reason_is_said(
    states: FakeStates, rung: Rung, caplog: pytest.LogCaptureFixture
) -> None:
    state, facts = states.obtain(rung, PRIVATE)

    states.discard(rung, PRIVATE, facts, "QEMU did not take it")

    assert not state.directory.exists()
    assert "QEMU did not take it" in caplog.text
    assert state.directory.parent.name in caplog.text
    states.obtain(rung, PRIVATE)
    assert states.made == 2


def test_who_discards_a_state_leaves_the_one_that_another_made_in_its_place(
    states: FakeStates, rung: Rung
) -> None:
    _, old = states.obtain(rung, PRIVATE)
    states.discard(rung, PRIVATE, old, "first to see it")
    state, _ = states.obtain(rung, PRIVATE)

    states.discard(rung, PRIVATE, old, "second to see it")

    assert state.directory.exists()


def test_discarding_what_is_gone_is_no_mistake(states: FakeStates, rung: Rung) -> None:
    states.discard(rung, PRIVATE, Facts("private"), "it went")


# room


def test_a_disk_that_is_nearly_full_is_said_before_anything_boots(
    states: FakeStates, rung: Rung, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: SimpleNamespace(free=(1 << 20) - 1, total=1, used=1)
    )

    with pytest.raises(StateBroken, match=r"0 MiB free, 1 MiB may be needed(.|\n)*next: "):
        states.obtain(rung, PRIVATE)
    assert states.made == 0
    assert list((states.store.root).iterdir()) == []


@pytest.mark.parametrize(
    "error", [ImageError("build host: the disk is full"), OSError(30, "Read-only file system")]
)
def test_a_state_that_cannot_be_kept_is_told_as_such(
    states: FakeStates, rung: Rung, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(states, "_make", fail)

    with pytest.raises(StateBroken, match=r"cannot be kept(.|\n)*next: TRAPLINE_CACHE"):
        states.obtain(rung, PRIVATE)
    assert states.store.entries() == []


def test_a_place_that_cannot_be_made_is_told_as_such(
    images: Path, rung: Rung, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StateBroken, match=r"cannot be kept(.|\n)*Not a directory"):
        FakeStates(parts_of(images), tmp_path / "file" / "states").obtain(rung, PRIVATE)


def rungs(rung: Rung, count: int) -> list[Rung]:
    return [boot_of(rung, append=f"number {n}") for n in range(count)]


def used(states: States, rung: Rung, when: float) -> Path:
    state, _ = states.obtain(rung, PRIVATE)
    os.utime(state.directory.parent / "used", (when, when))
    return state.directory


def test_what_was_not_used_for_longest_goes_when_a_new_one_needs_its_room(
    states: FakeStates, rung: Rung, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, fourth = rungs(rung, 4)
    places = [used(states, one, when) for one, when in ((first, 3e8), (second, 1e8), (third, 2e8))]
    (one,) = {bytes_of(artifact) for artifact in states.store.entries()}
    monkeypatch.setenv("TRAPLINE_STATES_CAP", str(3 * one))

    new, _ = states.obtain(fourth, PRIVATE)

    assert [place.exists() for place in places] == [True, False, True]
    assert new.directory.exists()


def test_a_new_state_stays_though_it_is_larger_than_the_cap(
    states: FakeStates, rung: Rung, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAPLINE_STATES_CAP", "0")
    one, other = rungs(rung, 2)
    old, _ = states.obtain(one, PRIVATE)

    new, _ = states.obtain(other, PRIVATE)

    assert (old.directory.exists(), new.directory.exists()) == (False, True)


def test_damaged_states_do_not_take_room_for_ever(states: FakeStates, rung: Rung) -> None:
    state, _ = states.obtain(rung, PRIVATE)
    os.truncate(state.memory, 1)
    states.obtain(rung, PRIVATE)

    assert not (states.store.root / "damaged").exists()


def test_a_state_that_goes_while_one_looks_is_no_error(
    states: FakeStates, rung: Rung, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanished(artifact: Artifact) -> int:
        raise FileNotFoundError(artifact.dir / "memory")

    monkeypatch.setattr(module, "bytes_of", vanished)

    assert states.obtain(rung, PRIVATE)[0].directory.exists()


def test_memory_that_was_never_touched_takes_no_room(tmp_path: Path) -> None:
    artifact = Artifact("host", "k", tmp_path / "files")
    artifact.dir.mkdir()
    os.truncate(os.open(artifact.dir / "memory", os.O_CREAT | os.O_WRONLY), 1 << 30)
    (artifact.dir / "devices").write_bytes(b"x" * 8192)

    assert 8192 <= bytes_of(artifact) < 1 << 20


def test_the_last_use_is_when_it_was_made_until_it_is_used(states: FakeStates, rung: Rung) -> None:
    state, _ = states.obtain(rung, PRIVATE)
    (artifact,) = states.store.entries()
    (state.directory.parent / "used").unlink()
    assert last_use(artifact) == artifact.manifest_path.stat().st_mtime
    states.obtain(rung, PRIVATE)
    assert last_use(artifact) == (state.directory.parent / "used").stat().st_mtime
    shutil.rmtree(state.directory.parent / "nothing", ignore_errors=True)
    assert last_use(Artifact("host", "other", Path("/nowhere/files"))) == 0


@given(
    ages=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 50)), min_size=1, max_size=12),
    kept=st.integers(0, 11),
    cap=st.integers(0, 4000),
)
def test_eviction_keeps_what_it_must_and_takes_the_oldest_first(
    ages: list[tuple[int, int]], kept: int, cap: int
) -> None:
    there = [(Artifact("host", f"{n}", Path(f"/{n}")), size, float(age))
             for n, (size, age) in enumerate(ages)]  # fmt: skip
    keep = there[kept % len(there)][0]

    gone = in_excess(there, keep=keep, cap=cap)

    assert keep not in gone and len(set(gone)) == len(gone)
    left = [one for one in there if one[0] not in gone]
    assert sum(size for _, size, _ in left) <= cap or [one[0] for one in left] == [keep]
    # Nothing that stays is older than what went, and nothing went without need.
    last = {artifact: when for artifact, _, when in there}
    others = [when for artifact, _, when in left if artifact != keep]
    assert all(last[one] <= when for one in gone for when in others)
    assert [last[one] for one in gone] == sorted(last[one] for one in gone)
    if gone:
        sizes = {artifact: size for artifact, size, _ in there}
        assert sum(size for _, size, _ in left) + sizes[gone[-1]] > cap


@pytest.mark.parametrize(
    ("text", "found"), [("300000000", 300000000), ("8G", 8 << 30), ("5m", 5 << 20), ("1K", 1024)]
)
def test_the_cap_is_bytes_or_has_a_unit(text: str, found: int) -> None:
    assert module.cap_of({"TRAPLINE_STATES_CAP": text}) == found
    assert module.cap_of({}) == module.CAP


@pytest.mark.parametrize("text", ["", "much", "-1", "8 GB", "1.5G"])
def test_a_cap_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"TRAPLINE_STATES_CAP(.|\n)*next: "):
        module.cap_of({"TRAPLINE_STATES_CAP": text})

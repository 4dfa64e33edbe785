"""How many workers a machine carries."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.spread.workers import MEMORY_OF_A_WORKER, MOST, automatic, free_memory

GIB = 1 << 30


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))


def machine(root: Path, available: int, cgroups: str = "") -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal: 99 kB\nMemFree: 1 kB\nMemAvailable: {available >> 10} kB\n"
    )
    (root / "proc/self/cgroup").write_text(cgroups)
    return root


def group(root: Path, path: str, **files: object) -> None:
    place = root / "sys/fs/cgroup" / path
    place.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (place / name.replace("__", ".")).write_text(f"{value}\n")


def test_memory_decides_where_cores_are_many(tmp_path: Path) -> None:
    found = automatic("virtual", root=machine(tmp_path, 2 * MEMORY_OF_A_WORKER + GIB))

    assert found.count == 2
    assert found.why == "16 cores, 7.0 GiB free, 3 GiB each, at most 4"


def test_cores_decide_where_memory_is_plenty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, 100 * GIB)

    assert automatic("virtual", root=tmp_path).count == MOST
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {5, 6, 7})
    assert automatic("virtual", root=tmp_path).count == 3


@pytest.mark.parametrize("available", [GIB, MEMORY_OF_A_WORKER + GIB])
def test_one_worker_is_none(tmp_path: Path, available: int) -> None:
    assert automatic("virtual", root=machine(tmp_path, available)).count == 0


@pytest.mark.parametrize("host", ["local", "ssh://root@lab7"])
def test_a_host_that_is_there_already_is_shared_by_nobody(tmp_path: Path, host: str) -> None:
    assert automatic(host, root=tmp_path / "not looked at").count == 0


def test_a_limit_of_version_2_counts_on_every_level(tmp_path: Path) -> None:
    machine(tmp_path, 64 * GIB, "0::/box/inner\n")
    group(tmp_path, "box/inner", memory__max="max", memory__current=0, memory__stat="")
    group(tmp_path, "box", memory__max=8 * GIB, memory__current=5 * GIB,
          memory__stat=f"anon 7\ninactive_file {4 * GIB}")  # fmt: skip

    assert free_memory(tmp_path) == 7 * GIB


def test_a_limit_of_version_1_counts_too(tmp_path: Path) -> None:
    machine(tmp_path, 64 * GIB, "4:memory:/elsewhere/seen/from/outside\n1:cpu:/\n0::/\n")
    group(tmp_path, "memory", memory__limit_in_bytes=6 * GIB, memory__usage_in_bytes=2 * GIB,
          memory__stat=f"inactive_file 1\ntotal_inactive_file {GIB}")  # fmt: skip

    assert free_memory(tmp_path) == 5 * GIB


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    machine(tmp_path, 64 * GIB, "4:memory:/\n")
    group(tmp_path, "memory", memory__limit_in_bytes=0x7FFF_FFFF_FFFF_F000,
          memory__usage_in_bytes=2 * GIB, memory__stat="")  # fmt: skip

    assert free_memory(tmp_path) == 64 * GIB


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    machine(tmp_path, 64 * GIB, "0::/\n")
    group(tmp_path, "", memory__max=GIB, memory__current=2 * GIB, memory__stat="")

    assert free_memory(tmp_path) == 0

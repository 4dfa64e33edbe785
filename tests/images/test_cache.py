"""The store: whole or not at all, one builder, damage found, nothing left behind."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ImageError
from harness.images.cache import Artifact, Store, _stamp_of, hash_file, hash_tree, key_of
from harness.images.manifest import hash_sparse, list_tree, write_json

KEY = "k" * 20


def build(into: Path) -> None:
    (into / "sub").mkdir()
    (into / "sub/file").write_text("content")
    (into / "program").write_text("#!/bin/sh\n")
    (into / "program").chmod(0o755)
    (into / "link").symlink_to("sub/file")


def never(into: Path) -> None:
    raise AssertionError(f"built although it was there: {into}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def artifact(store: Store) -> Artifact:
    return store.obtain(KEY, build, "thing", inputs={"recipe": "r"}, packages={"app": "1.0"})


def rewrite(path: Path, text: str) -> None:
    """Change a read-only file as a broken disk or a careless person would."""
    path.chmod(0o644)
    status = path.stat()
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def relink(link: Path, target: str) -> Path:
    link.unlink()
    link.symlink_to(target)
    return link


def leftovers(store: Store) -> list[str]:
    return [path.name for path in (store.root / "tmp").iterdir()]


def test_what_was_built_is_found_again_without_building(store: Store, artifact: Artifact) -> None:
    assert store.obtain(KEY, never, "thing") == artifact
    assert (artifact.dir / "link").read_text() == "content"


def test_the_record_names_inputs_packages_and_every_file(artifact: Artifact) -> None:
    record = artifact.manifest()

    assert (record.inputs, record.packages) == ({"recipe": "r"}, {"app": "1.0"})
    assert {name: entry.kind for name, entry in record.files.items()} == {
        "link": "link",
        "program": "program",
        "sub/file": "file",
    }
    assert record.files["sub/file"].size == len("content")
    assert record.size == len("content") + len("#!/bin/sh\n")


def test_artifacts_cannot_be_written_by_accident(artifact: Artifact) -> None:
    modes = [path.lstat().st_mode for path in artifact.dir.rglob("*") if not path.is_symlink()]

    assert not any(mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) for mode in modes)


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda d: rewrite(d / "sub/file", "c0ntent!"), id="another size"),
        pytest.param(lambda d: ((d / "sub").chmod(0o755), (d / "sub/file").unlink()), id="gone"),
        pytest.param(lambda d: (d.chmod(0o755), (d / "more").write_text("x")), id="one too many"),
        pytest.param(
            lambda d: (d.chmod(0o755), relink(d / "link", "program")),
            id="another link",
        ),
        pytest.param(lambda d: (d.parent / "manifest.json").write_text("{"), id="record"),
    ],
)
def test_a_damaged_artifact_is_moved_away_and_made_again(
    store: Store,
    artifact: Artifact,
    harm: Callable[[Path], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = hash_tree(artifact.dir)
    harm(artifact.dir)

    with caplog.at_level(logging.WARNING):
        again = store.obtain(KEY, build, "thing")

    assert hash_tree(again.dir) == before
    assert "thing" in caplog.text
    assert (store.root / "damaged").is_dir()


@given(parts=st.lists(st.tuples(st.integers(0, 3 << 20), st.binary(max_size=5000)), max_size=4))
def test_a_file_with_holes_has_the_hash_of_its_bytes(
    parts: list[tuple[int, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("sparse") / "file"
    with path.open("wb") as file:
        for gap, data in parts:
            file.seek(gap, os.SEEK_END)
            file.write(data)
        file.truncate(file.tell() + 12345)

    assert hash_sparse(path) == hash_file(path)


def test_damage_that_keeps_size_and_the_time_of_change_is_found(
    store: Store, artifact: Artifact
) -> None:
    rewrite(artifact.dir / "sub/file", "CONTENT")

    assert store.check(artifact) == ["sub/file has changed"]


def test_what_a_full_check_finds_is_found_again_by_who_looks_less_closely(
    store: Store, artifact: Artifact
) -> None:
    rewrite(artifact.dir / "sub/file", "CONTENT")
    # As if a disk had gone bad: nothing but the bytes shows it.
    write_json(artifact.dir.parent / "stamp.json", _stamp_of(list_tree(artifact.dir)))

    assert store.check(artifact) == []
    assert store.check(artifact, full=True) == ["sub/file has changed"]
    assert store.find("thing", KEY) is None


def test_a_copied_cache_is_hashed_once_and_believed_then(store: Store, artifact: Artifact) -> None:
    os.utime(artifact.dir / "program", (1, 1))
    stamp = artifact.dir.parent / "stamp.json"
    before = stamp.read_text()

    assert store.obtain(KEY, never, "thing") == artifact
    assert stamp.read_text() != before


def test_a_missing_stamp_means_that_every_hash_is_computed(
    store: Store, artifact: Artifact
) -> None:
    rewrite(artifact.dir / "sub/file", "CONTENT")
    (artifact.dir.parent / "stamp.json").unlink()

    assert store.check(artifact) == ["sub/file has changed"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_fills_leaves_nothing_and_says_what_to_do(store: Store, number: int) -> None:
    def fill(into: Path) -> None:
        (into / "half").write_text("half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(ImageError, match="the disk is full") as caught:
        store.obtain(KEY, fill, "thing")

    assert "TRAPLINE_CACHE" in caught.value.hint
    assert leftovers(store) == []
    assert store.entries() == []


def test_a_file_size_limit_of_the_system_counts_as_a_full_disk(store: Store) -> None:
    script = f"""
import resource, signal
from pathlib import Path
from harness.errors import ImageError
from harness.images.cache import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Store(Path({str(store.root)!r})).obtain(
        {KEY!r}, lambda into: (into / "big").write_bytes(bytes(1_000_000)), "thing")
except ImageError as error:
    print(error.summary)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stdout == "build thing: the disk is full\n", done.stderr
    assert leftovers(store) == []


def test_a_build_that_fails_leaves_nothing(store: Store) -> None:
    def fail(into: Path) -> None:
        (into / "half").write_text("half")
        (into / "half").chmod(0o444)
        raise ImageError("no")

    with pytest.raises(ImageError, match="no"):
        store.obtain(KEY, fail, "thing")

    assert leftovers(store) == []
    assert store.find("thing", KEY) is None


def _build_counting(root: str, gate: str) -> None:
    def slow(into: Path) -> None:
        with open(gate, "a") as count:
            count.write("built\n")
        (into / "file").write_text("content")

    Store(Path(root)).obtain(KEY, slow, "thing")


def test_of_two_builders_one_builds_and_both_get_it(store: Store, tmp_path: Path) -> None:
    gate = tmp_path / "count"
    context = multiprocessing.get_context("spawn")
    builders = [
        context.Process(target=_build_counting, args=(str(store.root), str(gate)))
        for _ in range(2)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()

    assert [builder.exitcode for builder in builders] == [0, 0]
    assert gate.read_text() == "built\n"


HANGING_BUILDER = """
import sys
from pathlib import Path
from harness.images.cache import Store

def hang(into):
    (into / "half").write_text("half")
    print("building", flush=True)
    sys.stdin.read()

Store(Path(sys.argv[1])).obtain(sys.argv[2], hang, sys.argv[3])
"""


def start_hanging(store: Store, key: str, name: str) -> subprocess.Popen[str]:
    builder = subprocess.Popen(
        [sys.executable, "-c", HANGING_BUILDER, str(store.root), key, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert builder.stdout is not None
    assert builder.stdout.readline() == "building\n"
    return builder


@pytest.mark.parametrize("subject", [("thing", KEY), ("other", "o" * 20)])
def test_what_a_killed_builder_left_is_removed_by_the_next(
    store: Store, subject: tuple[str, str]
) -> None:
    with start_hanging(store, subject[1], subject[0]) as builder:
        builder.send_signal(signal.SIGKILL)
    assert len(leftovers(store)) == 1

    store.obtain(KEY, build, "thing")

    assert leftovers(store) == []


def test_a_living_builder_is_left_alone_and_named_to_who_waits(store: Store) -> None:
    impatient = Store(store.root, longest_wait=0)
    with start_hanging(store, "o" * 20, "other") as builder:
        store.obtain(KEY, build, "thing")
        assert len(leftovers(store)) == 1

        with pytest.raises(ImageError, match="lock was not free") as caught:
            impatient.obtain("o" * 20, build, "other")
        builder.kill()

    assert f"process {builder.pid}: build other" in caught.value.seen


def test_removed_artifacts_are_gone_and_can_be_built_again(
    store: Store, artifact: Artifact
) -> None:
    store.remove(artifact)

    assert store.entries() == []
    assert store.obtain(KEY, build, "thing").dir.is_dir()


def test_entries_are_listed_by_name_and_newest_first(store: Store) -> None:
    for number, (name, key) in enumerate([("b", "1"), ("a", "2"), ("a", "3")]):
        made = store.obtain(key, build, name)
        os.utime(made.manifest_path, (number, number))

    assert [(one.name, one.key) for one in store.entries()] == [("a", "3"), ("a", "2"), ("b", "1")]


def test_the_key_of_a_recipe_is_remembered(store: Store) -> None:
    assert store.recall("recipe") is None

    store.remember("recipe", KEY)
    store.remember("recipe", "new")

    assert store.recall("recipe") == "new"


def test_keys_tell_borders_of_inputs() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of("a") == key_of(b"a")


def test_the_hash_of_a_tree_sees_names_modes_links_and_contents(tmp_path: Path) -> None:
    changes: list[Callable[[Path], object]] = [
        lambda tree: tree,
        lambda tree: (tree / "program").chmod(0o644),
        lambda tree: (tree / "program").rename(tree / "other"),
        lambda tree: (tree / "program").write_text("x"),
        lambda tree: relink(tree / "link", "program"),
    ]
    seen = set()
    for number, change in enumerate(changes):
        tree = tmp_path / str(number)
        tree.mkdir()
        build(tree)
        change(tree)
        seen.add(hash_tree(tree))

    assert len(seen) == len(changes)

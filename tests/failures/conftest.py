"""Real QEMU and real runs, and what is left of them.

These tests use what is in the cache of images; they do not fill it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import paths
from harness.lab.parts import Parts
from harness.machine.command import MachineSpec
from harness.machine.launch import Launch
from harness.machine.machine import Machine
from harness.machine.place import LocalPlace
from harness.settings import Settings
from harness.wait import wait_until

ROOT = Path(__file__).resolve().parents[2]
MARK = "TRAPLINE_TEST_OF_FAILURES"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say at collection what an empty cache leaves out."""
    images = paths.cache_dir() / "images"
    missing = [name for name in ("qemu", "kernel", "host", "guest") if not any_in(images / name)]
    mark = pytest.mark.skipif(
        bool(missing),
        reason=f"the cache has no {', '.join(missing)}: 'trapline images build' makes them",
    )
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(mark)


def any_in(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())


@pytest.fixture(scope="session")
def parts() -> Parts:
    """The default images and builds."""
    return Parts(Settings())


@pytest.fixture
def run_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The run-time directory of this test; with a short path."""
    with tempfile.TemporaryDirectory(prefix="tl-") as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)
        yield Path(place)


@pytest.fixture
def launch(parts: Parts, run_time: Path, tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Start a machine of the real QEMU on this computer; ended when the test ends."""
    with contextlib.ExitStack() as stack:

        def start(spec: MachineSpec) -> Machine:
            wanted = Launch(LocalPlace(), parts.qemu, tmp_path, level="L1")
            return stack.enter_context(Machine.launch(spec, wanted))

        yield start
    assert list(run_time.iterdir()) == []


@dataclass
class Run:
    """A ``trapline run`` in a process group of its own, with a mark on all it starts."""

    words: tuple[str, ...]
    place: Path
    run_time: Path
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.temporary = self.place / "tmp"
        self.temporary.mkdir()
        self.results = self.place / "results"
        code = "import sys; from harness.cli import main; sys.exit(main())"
        with open(self.place / "output", "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "run", *self.words, "--results", str(self.results)],
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Whoever starts us in the background of a script ignores it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def _environment(self) -> dict[str, str]:
        """Ours without what pytest-xdist says to its workers and the caller to trapline."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "TRAPLINE_"))
        }
        cache = {"TRAPLINE_CACHE": os.fspath(paths.cache_dir())}
        place = {"XDG_RUNTIME_DIR": os.fspath(self.run_time), "TMPDIR": os.fspath(self.temporary)}
        return kept | cache | place | {MARK: self.mark}

    @property
    def output(self) -> str:
        return (self.place / "output").read_text(errors="replace")

    @property
    def summary(self) -> str:
        (found,) = self.results.glob("2*/summary.txt")
        return found.read_text()

    def living(self, containing: str = "") -> list[int]:
        """Return the processes with our mark and *containing* in their command line."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.mark}".encode() not in (entry / "environ").read_bytes():
                    continue
                if containing.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def wait_for_qemu(self) -> None:
        """Return when the QEMU of the virtual host runs."""
        wait_until(
            "the run starts a QEMU",
            lambda: self.living("qmp-debug"),
            timeout=90,
            guards=(self._still_runs,),
            last_seen=lambda: self.output,
        )

    def _still_runs(self) -> None:
        assert self.process.poll() is None, self.output

    def end(self) -> None:
        """Make sure that nothing goes on."""
        for pid in self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)


StartRun = Callable[..., Run]


@pytest.fixture
def start_run(tmp_path: Path, run_time: Path) -> Iterator[StartRun]:
    """Start a ``trapline run``; nothing of it goes on when the test ends."""
    runs: list[Run] = []

    def start(*words: str) -> Run:
        place = tmp_path / f"run-{len(runs)}"
        place.mkdir()
        runs.append(Run(words, place, run_time))
        return runs[-1]

    yield start
    for run in runs:
        run.end()
        shutil.rmtree(run.temporary)

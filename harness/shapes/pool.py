"""Chunks spread over processes: as many QEMUs run at once as there are workers."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import IO, Final, Protocol

from harness import process
from harness.errors import HarnessError, MachineError
from harness.shapes.chunk_json import result_from_dict
from harness.shapes.observe import Build
from harness.shapes.run import CHUNK, ChunkResult, run_chunk
from harness.shapes.worker import READY

WORKER: Final = (sys.executable, "-m", "harness.shapes.worker")
_SLICE: Final = 0.2
"""Seconds between two looks at the workers."""
_LONGEST: Final = 1200.0
"""Seconds that one chunk may take, shrinking included, on a busy computer."""


class Plan:
    """Which chunks are to be done: until enough shapes, or until the time is up.

    :param count: shapes; None: as many as there is time for.
    :param seconds: no chunk begins later; None: no end.
    """

    def __init__(self, count: int | None, seconds: float | None) -> None:
        self.count = count
        self._end = None if seconds is None else time.monotonic() + seconds
        self._given = 0

    def next(self) -> tuple[int, int] | None:
        """Return number and size of the next chunk, None if there is none."""
        begun = self._given * CHUNK
        if self.count is not None and begun >= self.count:
            return None
        if self._end is not None and time.monotonic() >= self._end and self._given:
            return None
        number, self._given = self._given, self._given + 1
        return number, CHUNK if self.count is None else min(CHUNK, self.count - begun)


class Judge(Protocol):
    """Judges the chunks of a plan."""

    def results(self, plan: Plan) -> Iterator[ChunkResult]:
        """Yield what came out, in any order."""


class Here:
    """Judges one chunk after the other in this process."""

    def __init__(self, qemu: Build, seed: int) -> None:
        self._qemu, self._seed = qemu, seed

    def results(self, plan: Plan) -> Iterator[ChunkResult]:
        """Yield what came out, in order."""
        while (chunk := plan.next()) is not None:
            yield run_chunk(self._qemu, self._seed, *chunk)


class Pool:
    """Judges chunks in *jobs* processes; a context manager.

    :param spec: name of the build, see `QemuBuild.resolve`.
    :param worker: how a worker is started, before build and seed.
    """

    def __init__(self, spec: str, seed: int, jobs: int, *, worker: Sequence[str] = WORKER) -> None:
        self._answers: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._workers: list[subprocess.Popen[bytes]] = []
        argv = [*worker, spec, str(seed)]
        try:
            for number in range(jobs):
                child = process.start(
                    argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
                )
                self._workers.append(child)
                assert child.stdout is not None
                threading.Thread(
                    target=self._listen, args=(number, child.stdout), daemon=True
                ).start()
        except BaseException:
            self.close()
            raise

    def results(self, plan: Plan) -> Iterator[ChunkResult]:
        """Yield what came out, as it comes.

        :raise HarnessError: a worker ended, or cannot go on.
        """
        busy = set(range(len(self._workers)))  # not ready yet
        while busy:
            number, line = self._hear()
            if line != READY:
                yield self._read(line)
            chunk = plan.next()
            if chunk is None:
                busy.discard(number)
            else:
                self._ask(number, chunk)

    def close(self) -> None:
        """End the workers and their QEMUs."""
        for worker in self._workers:
            process.kill(worker)
            for stream in (worker.stdin, worker.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # what it was not told
                        stream.close()
        self._workers.clear()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _listen(self, number: int, stream: IO[bytes]) -> None:
        try:
            for line in stream:
                self._answers.put((number, line.decode().strip()))
        except ValueError:  # closed
            pass
        self._answers.put((number, ""))

    def _hear(self) -> tuple[int, str]:
        deadline = time.monotonic() + _LONGEST
        while time.monotonic() < deadline:
            try:
                number, line = self._answers.get(timeout=_SLICE)
            except queue.Empty:
                continue
            if line:
                return number, line
            raise self._ended(number)
        raise MachineError(f"no process that judges shapes answered within {_LONGEST:g} s")

    def _ask(self, number: int, chunk: tuple[int, int]) -> None:
        stream = self._workers[number].stdin
        assert stream is not None
        try:
            stream.write(f"{chunk[0]} {chunk[1]}\n".encode())
            stream.flush()
        except BrokenPipeError as error:
            raise self._ended(number) from error

    def _ended(self, number: int) -> MachineError:
        return MachineError(
            "a process that judges shapes ended",
            seen=f"its exit status is {self._workers[number].wait()}",
            hint="trapline shapes --jobs 1 shows what it says",
        )

    def _read(self, line: str) -> ChunkResult:
        try:
            values = json.loads(line)
            if "error" in values:
                raise HarnessError(
                    "a process that judges shapes cannot go on", seen=values["error"]
                )
            return result_from_dict(values)
        except ValueError as error:
            raise MachineError(
                "a process that judges shapes says nonsense", seen=line[:300]
            ) from error

"""A QEMU without a processor, with the devices of some shapes in it.

Everything in it is written over qtest, as firmware would, and read with ``info mtree -f -o``.
It lives in a private directory, where the sockets of its devices have short names: QEMU calls
the regions of a device after the path of its socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from harness import paths, process
from harness.device.device import Device
from harness.device.server import Served, SessionMaker, serve
from harness.device.session import Session
from harness.errors import LaunchFailed, MachineDied, QmpFailed
from harness.machine.exit_status import describe_exit
from harness.machine.launch import Runnable
from harness.machine.qmp import Qmp
from harness.machine.qtest import Qtest, config_write
from harness.shapes.areas import place_shapes
from harness.shapes.programming import Programmer, Write, bridge_writes
from harness.shapes.served import device_of
from harness.shapes.shape import Place, Shape

DRIVER: Final = "vfio-user-pci"
LABEL: Final = "device modelled (vfio-user), QEMU real"
"""What qualifies every result of a shape."""
TIMEOUT: Final = 30.0
"""Seconds that QEMU may take for one thing on a busy computer; more is a hang."""
MOST: Final = 28
"""Shapes in one machine: each takes a slot of the root bus."""
_FIRST_SLOT: Final = 2
_LOG: Final = "qemu.log"
_BRIDGES: Final = {Place.PORT: "pcie-root-port", Place.BRIDGE: "pci-bridge"}


class Bench:
    """A machine with shapes; a context manager.

    :param qemu: the build; it has ``vfio-user-pci``.
    :param devices: served for a shape by its number, instead of what `device_of` makes of it.
    :param sessions: how clients of a shape are answered (`harness.device.faults`), by number.
    :param options: more properties of ``vfio-user-pci``, by number.
    :param words: more arguments of QEMU.
    :param log: where the exchanges over QMP go; nowhere by default.
    :raise LaunchFailed: QEMU ended, or never answered; carries its status and words.
    :raise NoRoom: the shapes do not fit into one machine.
    """

    def __init__(
        self,
        qemu: Runnable,
        shapes: Sequence[Shape],
        *,
        devices: Mapping[int, Device] | None = None,
        sessions: Mapping[int, SessionMaker] | None = None,
        options: Mapping[int, Mapping[str, str | int | bool]] | None = None,
        words: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        self.shapes = tuple(shapes)
        self._options = options or {}
        self._words = tuple(words)
        self.names = tuple(f"s{number}" for number in range(len(self.shapes)))
        self.areas = place_shapes(self.shapes)
        self.programmers = tuple(map(Programmer, self.shapes, self.areas))
        self.directory = paths.runtime_dir()
        self.served: list[Served] = []
        self._qmp: Qmp | None = None
        self._qtest: Qtest | None = None
        self._child: subprocess.Popen[bytes] | None = None
        try:
            for number, shape in enumerate(self.shapes):
                device = (devices or {}).get(number) or device_of(shape)
                session = (sessions or {}).get(number, Session)
                self.served.append(serve(device, self.directory / self.names[number], session))
            self._launch(qemu, log or Path(os.devnull))
            self._qtest_run(
                [
                    command
                    for number, shape in enumerate(self.shapes)
                    if shape.place is not Place.ROOT
                    for write in bridge_writes(shape, self.areas[number], number + 1)
                    for command in self._commands(number, write)
                ]
            )
        except BaseException:
            self.close()
            raise

    # -- what is done with it -----------------------------------------------------------

    def do_step(self, step: int) -> None:
        """Do step number *step* of every shape that has it.

        :raise MachineDied: QEMU ended.
        :raise QmpFailed: it does not answer.
        """
        commands: list[str] = []
        for number, shape in enumerate(self.shapes):
            if step >= len(shape.all_steps):
                continue
            for action in shape.all_steps[step]:
                for write in self.programmers[number].writes(action):
                    commands += self._commands(number, write)
        self._qtest_run(commands)

    def read_map(self) -> str:
        """Return the answer of ``info mtree -f -o``.

        :raise MachineDied: QEMU ended.
        """
        return self.hmp("info mtree -f -o")

    def hmp(self, line: str) -> str:
        """Execute a command of the human monitor and return its text.

        :raise MachineDied: QEMU ended.
        """
        return self.qmp.hmp(line, timeout=TIMEOUT)

    @property
    def qmp(self) -> Qmp:
        """The QMP session."""
        assert self._qmp is not None
        return self._qmp

    @property
    def qtest(self) -> Qtest:
        """The qtest session."""
        assert self._qtest is not None
        return self._qtest

    def place_of(self, number: int) -> tuple[int, int]:
        """Return bus and slot of shape *number*."""
        place = self.shapes[number].place
        if place is Place.ROOT:
            return 0, number + _FIRST_SLOT
        return number + 1, 0 if place is Place.PORT else 1

    def stderr(self) -> str:
        """Return what QEMU said so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / _LOG).read_text(errors="replace")
        return ""

    # -- life ---------------------------------------------------------------------------

    def quit(self) -> int:
        """End QEMU as a user would; return its exit status."""
        assert self._child is not None and self._qmp is not None
        with contextlib.suppress(MachineDied, QmpFailed):
            self._qmp.execute("quit", timeout=5)
        try:
            return self._child.wait(TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise QmpFailed(
                f"QEMU did not end within {TIMEOUT:g} s of 'quit'", description=self.stderr()
            ) from error

    def close(self) -> None:
        """End QEMU and the devices now; callable twice."""
        if self._qmp is not None:
            self._qmp.close()
        if self._qtest is not None:
            self._qtest.close()
        if self._child is not None:
            process.kill(self._child)
            self._child = None
        while self.served:
            self.served.pop().close()
        paths.remove_runtime_dir(self.directory)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------

    def _launch(self, qemu: Runnable, log: Path) -> None:
        ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
        argv = [*qemu.argv_prefix, *self.arguments([end.fileno() for end in theirs])]
        self._qtest = Qtest(ours[1], timeout=TIMEOUT)
        self._qmp = Qmp("shapes", log, guards=(self._check,))
        try:
            with (self.directory / _LOG).open("wb") as stderr:
                self._child = process.start(
                    argv,
                    stdout=stderr,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **qemu.env},
                    cwd=self.directory,
                    pass_fds=[end.fileno() for end in theirs],
                )
        except OSError as error:
            ours[0].close()
            raise LaunchFailed(
                f"QEMU {qemu.label} cannot be started", exit_status=None, stderr=str(error)
            ) from error
        finally:
            for end in theirs:
                end.close()
        try:
            self._qmp.connect(ours[0], timeout=TIMEOUT)
        except (MachineDied, QmpFailed) as error:
            raise self._failed(qemu, error) from error

    def _failed(self, qemu: Runnable, error: Exception) -> LaunchFailed:
        """Return what ended the start: QEMU itself, or we because it hangs."""
        assert self._child is not None
        try:
            status = self._child.wait(TIMEOUT if isinstance(error, MachineDied) else 0)
            how = describe_exit(status)
        except subprocess.TimeoutExpired:
            status = process.kill(self._child)
            how = f"did not answer within {TIMEOUT:g} s and was ended"
        return LaunchFailed(
            f"QEMU {qemu.label} {how} with these shapes",
            exit_status=status,
            stderr=self.stderr(),
        )

    def _check(self) -> None:
        status = self._child.poll() if self._child is not None else None
        if status is not None:
            raise MachineDied(f"QEMU {describe_exit(status)}", seen=self.stderr()[-2000:])

    def arguments(self, descriptors: Sequence[int]) -> list[str]:
        """Return QEMU's arguments; *descriptors* are its ends of QMP and of qtest."""
        words = ["-no-user-config", "-nodefaults", "-display", "none", "-m", "16"]
        words += ["-machine", "q35", "-accel", "qtest"]
        for name, descriptor in zip(("qmp", "qtest"), descriptors, strict=True):
            words += ["-chardev", f"socket,id={name},fd={descriptor}"]
        words += ["-qmp", "chardev:qmp", "-qtest", "chardev:qtest"]
        words += ["-qtest-log", "none"]
        for number, shape in enumerate(self.shapes):
            for device in self._devices(number, shape):
                words += ["-device", json.dumps(device)]
        return [*words, *self._words]

    def _devices(self, number: int, shape: Shape) -> list[dict[str, object]]:
        name, root = self.names[number], f"{number + _FIRST_SLOT:x}"
        device: dict[str, object] = {"driver": DRIVER, "id": name}
        device["socket"] = {"type": "unix", "path": name}
        device |= self._options.get(number, {})
        if shape.place is Place.ROOT:
            return [device | {"bus": "pcie.0", "addr": root}]
        bridge: dict[str, object] = {
            "driver": _BRIDGES[shape.place],
            "id": f"b{number}",
            "bus": "pcie.0",
            "addr": root,
        }
        chassis = "chassis" if shape.place is Place.PORT else "chassis_nr"
        _, slot = self.place_of(number)
        return [
            bridge | {chassis: number + 1},
            device | {"bus": f"b{number}", "addr": f"{slot:x}"},
        ]

    def _commands(self, number: int, write: Write) -> list[str]:
        bus, slot = self.place_of(number)
        if write.bridge:
            bus, slot = 0, number + _FIRST_SLOT
        return config_write(bus, slot, 0, write.offset, write.value, write.width)

    def _qtest_run(self, commands: Sequence[str]) -> None:
        try:
            self.qtest.run(commands)
        except MachineDied:
            assert self._child is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(TIMEOUT)
            self._check()
            raise

"""Machines for devices in Python: their memory, their QEMU, how they end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.device.device import Device
from harness.errors import Unreachable
from harness.lab import vfio_user as module
from harness.lab.parts import Parts
from harness.lab.plugged import Seat
from harness.lab.vfio_user import FALLBACK, Stage, parts_with_devices, shared_memory
from harness.machine.command import MachineSpec, Sockets, command_line
from harness.model.version import QemuVersion
from harness.settings import Settings


@dataclass
class FakeMachine:
    """Takes devices; one of them may be refused."""

    log: list[str]
    refuses: str = ""
    evidence: Path = Path("nowhere")
    added: list[Any] = field(default_factory=list)

    def add_device(self, device: Any) -> None:
        if device.id == self.refuses:
            raise RuntimeError("refused")
        self.added.append(device)
        self.log.append(f"add {device.id}")


@dataclass
class FakeHost:
    """A host that writes down what becomes of it."""

    log: list[str]
    machine: FakeMachine
    name: str = "host"

    def run(self, command: str, *, timeout: float) -> None:
        self.log.append(command)

    def kernel_log(self) -> str:
        raise Unreachable("it is gone")

    def close(self) -> None:
        self.log.append("host closed")


def stage(log: list[str], refuses: str = "") -> Stage:
    host = FakeHost(log, FakeMachine(log, refuses))
    return Stage(cast(Any, host), QemuVersion.parse("11.1.3"))


def test_memory_is_shared_and_anonymous() -> None:
    words = command_line(shared_memory(MachineSpec("m", memory_mib=64)), Sockets("/run/m"))

    assert "memory-backend-memfd,id=memory,size=64M,share=on" in words
    assert "q35,memory-backend=memory" in words


@pytest.mark.parametrize(
    ("able", "chosen"),
    [
        ({"under-test", "lab", FALLBACK}, "under-test"),
        ({"lab", FALLBACK}, "lab"),
        ({FALLBACK}, FALLBACK),
    ],
)
def test_the_build_under_test_comes_first(
    able: set[str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Parts, "l0_qemu",
        property(lambda parts: SimpleNamespace(
            features=SimpleNamespace(has_device=lambda _: parts.settings.l0_qemu in able)
        )),
    )  # fmt: skip
    parts = Parts(Settings(qemu="under-test", l0_qemu="lab"), cast(Any, object()))

    found = parts_with_devices(parts)

    assert found.settings.l0_qemu == chosen
    assert found.images is parts.images


def test_devices_are_plugged_in_order_and_waited_for_together() -> None:
    log: list[str] = []
    here = stage(log)

    here.plug(
        Seat("virtual", Device(), "rp1", "0.1"), Seat("physical", Device(), "rp1", "0.0"),
        Seat("alone", Device(), "rp0"),
    )  # fmt: skip
    here.close()

    assert log[:3] == ["add virtual", "add physical", "add alone"]
    behind = "/sys/bus/pci/devices/0000:00:09.0/0000:*:00"
    assert f"'{behind}.1/config' '{behind}.0/config'" in log[3]
    assert f"for f in {behind}.1; do echo 1 > $f/enable; done" in log[3]
    multi = [device.options.get("multifunction", False) for device in here.host.machine.added]  # type: ignore[attr-defined]
    assert multi == [True, True, False]


def test_the_kernel_has_found_room_for_bars_before_they_are_switched_on() -> None:
    log: list[str] = []
    here = stage(log)

    here.plug(Seat("one", Device(), "rp0"))
    here.close()

    wait, settle, enable = log[1].splitlines()[1:]
    assert wait.startswith("probe await ")
    assert settle == (
        "for b in /sys/bus/pci/devices/0000:00:08.0/pci_bus/*/rescan; do echo 1 > $b; done"
    )
    assert enable.endswith("echo 1 > $f/enable; done")


def test_the_machine_ends_before_its_devices() -> None:
    log: list[str] = []
    here = stage(log)
    (one,) = here.plug(Seat("one", Device(), "rp0"))
    was_there = []
    here.host.close = lambda: was_there.append(one.served.socket.exists())  # type: ignore[method-assign]

    here.close()

    assert was_there == [True]
    assert not one.served.socket.exists()


def test_a_device_that_qemu_refuses_is_closed_with_the_rest() -> None:
    here = stage([], refuses="bad")

    with pytest.raises(RuntimeError):
        here.plug(Seat("good", Device(), "rp0"), Seat("bad", Device(), "rp1"))
    sockets = [plugged.served.socket for plugged in here.plugged.values()]
    here.close()

    assert len(sockets) == 2
    assert not any(socket.exists() for socket in sockets)


def test_states_with_private_memory_are_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def restored(parts: Any, rung: Any, ways: Any, **_: Any) -> str:
        asked.extend(way.value for way in ways)
        return "host"

    monkeypatch.setattr(module, "restored", restored)
    parts = SimpleNamespace(settings=Settings())

    module._open(cast(Any, parts), cast(Any, None), cast(Any, None), cast(Any, None))

    assert asked == ["mapped", "plain"]

"""Going on from a saved state, and what is done when that cannot be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import (
    ConfigError,
    GuestCrashed,
    LaunchFailed,
    MachineDied,
    ParseError,
    QmpFailed,
    Unreachable,
    WaitTimeout,
)
from harness.guest.keys import RunKey
from harness.host.accelerator import Accel, Accelerator
from harness.host.virtual import VirtualHost
from harness.lab import hosts
from harness.lab.hosts import methods, restored
from harness.lab.parts import Parts
from harness.lab.states import Facts, Rung
from harness.machine.command import MachineSpec
from harness.machine.machine import Machine
from harness.machine.saved_state import Method, SavedState, StateBroken

HOST = Rung(MachineSpec("host"))
NESTED = Rung(MachineSpec("host"), MachineSpec("nested"))
BROKEN = StateBroken("host: could not restore its state")
CANNOT = StateBroken("this QEMU cannot keep memory so")


class FakeStates:
    """States that are made when they are first asked for; says what was done."""

    def __init__(self, root: Path, fails: dict[Method, Exception]) -> None:
        self.done: list[str] = []
        self._root, self._fails, self._there = root, fails, set[Method]()

    def obtain(self, rung: Rung, method: Method) -> tuple[SavedState, Facts]:
        if method in self._fails:
            self.done.append(f"fail {method.value}")
            raise self._fails[method]
        self.done.append(f"{'find' if method in self._there else 'make'} {method.value}")
        self._there.add(method)
        facts = Facts(method.value, "/run/left" if rung.nested else "", "tcg", "no KVM")
        return SavedState(self._root / method.value, method), facts

    def discard(self, rung: Rung, method: Method, facts: Facts, why: str) -> None:
        assert facts.method == method.value
        self._there.discard(method)
        self.done.append(f"discard {method.value}: {why}")


Restore = Callable[..., tuple[VirtualHost | None, list[str]]]


@pytest.fixture
def restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Restore:
    """Go on from a state, while QEMU and the states behave as they are told."""

    def go(
        *happens: Exception | None,
        rung: Rung = HOST,
        ways: tuple[Method, ...] = tuple(Method),
        fails: dict[Method, Exception] | None = None,
        then: Callable[[Machine], None] = lambda machine: None,
    ) -> tuple[VirtualHost | None, list[str]]:
        states, events = FakeStates(tmp_path, fails or {}), list(happens)

        def fake_restore(
            spec: MachineSpec, state: SavedState, *, meanwhile: Any, **_: object
        ) -> object:
            event = events.pop(0)
            if event is not None:
                raise event
            meanwhile(cast(Machine, None))
            return SimpleNamespace(left=None, accelerator=None, state=state)

        monkeypatch.setattr(hosts, "States", lambda parts: states)
        monkeypatch.setattr(VirtualHost, "restore", fake_restore)
        parts = cast(Parts, SimpleNamespace(
            l0_qemu=None, placed_qemu=lambda: None, guest_files=lambda key: None
        ))  # fmt: skip
        key = RunKey(tmp_path / "key", "AAAA")
        host = restored(parts, rung, ways, key=key, evidence=tmp_path, meanwhile=then)
        return host, states.done

    return go


def test_the_best_way_is_taken_and_leads_to_what_was_seen_when_it_was_made(
    restore: Restore, tmp_path: Path
) -> None:
    seen = tmp_path / "private" / "evidence" / "nested"
    seen.mkdir(parents=True)
    (seen / "console.log").write_text("trapline: ready")
    host, done = restore(None)

    assert host is not None and cast(Any, host).state.method is Method.PRIVATE
    assert done == ["make private"]
    assert (tmp_path / "boot" / "nested" / "console.log").read_text() == "trapline: ready"


def test_a_guest_that_was_left_in_it_is_known(restore: Restore) -> None:
    host, _ = restore(None, rung=NESTED)

    assert host is not None and host.left is not None
    assert (host.left.spec, host.left.directory) == (NESTED.nested, "/run/left")
    assert host.accelerator == Accelerator(Accel.TCG, "no KVM")


@pytest.mark.parametrize(
    "error",
    [
        BROKEN,
        LaunchFailed("QEMU exited with 1", exit_status=1, stderr="No such file or directory"),
        MachineDied("QEMU was ended by signal 7 (SIGBUS)"),
        QmpFailed("cont was refused"),
        Unreachable("it does not wake"),
        GuestCrashed("panic", level="L1", kind="kernel panic", seen="", evidence=None),
        WaitTimeout("its second serial port: did not happen"),
        ParseError("no forward", text="", where="info usernet"),
        ConnectionResetError("the second serial port"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_state_that_cannot_be_gone_on_with_is_made_again_once(
    restore: Restore, error: Exception
) -> None:
    host, done = restore(error, None)

    assert host is not None
    assert done == ["make private", f"discard private: {error}", "make private"]


def test_a_device_that_is_refused_says_nothing_against_the_state(
    restore: Restore, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(machine: Machine) -> None:
        raise QmpFailed("device_add", error_class="GenericError", description="no such device")

    with pytest.raises(QmpFailed, match="no such device"):
        restore(None, then=refuse)

    assert caplog.text == ""


def test_a_device_that_gets_no_answer_may_be_the_fault_of_the_state(restore: Restore) -> None:
    answers = [QmpFailed("no answer to device_add within 60 s")]

    def fall_silent(machine: Machine) -> None:
        if answers:
            raise answers.pop()

    host, done = restore(None, None, then=fall_silent)

    assert host is not None
    assert [line.split(":")[0] for line in done] == [
        "make private", "discard private", "make private",
    ]  # fmt: skip


def test_a_new_state_that_is_of_no_use_either_leads_to_the_next_way_and_then_to_a_boot(
    restore: Restore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        host, done = restore(BROKEN, BROKEN, BROKEN, BROKEN, ways=(Method.PRIVATE, Method.PLAIN))

    assert host is None
    assert [line.split(":")[0] for line in done] == [
        "make private", "discard private", "make private",
        "make plain", "discard plain", "make plain",
    ]  # fmt: skip
    assert caplog.text.count("could not restore its state") == 2


@pytest.mark.parametrize(
    "error", [CANNOT, MachineDied("SIGBUS"), LaunchFailed("x", exit_status=1, stderr="")]
)
def test_a_way_that_cannot_be_leads_to_the_next(
    restore: Restore, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    host, done = restore(None, fails={Method.PRIVATE: error, Method.MAPPED: error})

    assert host is not None
    assert done == ["fail private", "fail mapped", "make plain"]
    assert caplog.text.count("no saved state (") == 2


def test_where_no_way_is_left_the_host_boots(restore: Restore) -> None:
    host, done = restore(fails=dict.fromkeys(Method, CANNOT))

    assert host is None
    assert done == ["fail private", "fail mapped", "fail plain"]


def test_a_host_that_does_not_come_up_is_no_matter_of_states(restore: Restore) -> None:
    crash = GuestCrashed("panic", level="L1", kind="kernel panic", seen="", evidence=None)

    with pytest.raises(GuestCrashed):
        restore(fails={Method.PRIVATE: crash})


def test_the_setting_names_one_way_or_all() -> None:
    assert methods("auto") == (Method.PRIVATE, Method.MAPPED, Method.PLAIN)
    assert methods("plain") == (Method.PLAIN,)
    with pytest.raises(ConfigError, match=r"'fast'(.|\n)*private, mapped, plain, and off"):
        methods("fast")

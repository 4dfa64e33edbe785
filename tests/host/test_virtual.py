"""A host that nobody needs stands still, its guests first."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import MachineDied, QmpFailed, Unreachable
from harness.host.virtual import Left, VirtualHost
from harness.machine.machine import Machine


class Fake:
    """A machine, or a connection, that writes down in *said* what is asked of it."""

    def __init__(self, name: str, said: list[str], fails: Exception | None = None) -> None:
        self.name, self.said, self.fails = name, said, fails
        self.stands_still = False
        self.went_on: Callable[[], None] = lambda: None

    def stand_still(self, *, timeout: float = 60) -> None:
        self.said.append(f"stop {self.name}")
        if self.fails:
            raise self.fails
        self.stands_still = True

    def go_on(self, *, timeout: float = 60) -> None:
        if self.stands_still:
            self.stands_still = False
            self.said.append(f"cont {self.name}")
            self.went_on()

    def kill(self) -> None:
        self.said.append(f"kill {self.name}")


class Connection:
    """A connection to a host that answers, or does not."""

    def __init__(self, said: list[str], answers: bool) -> None:
        self.said, self.answers = said, answers

    def fall_silent(self) -> bool:
        self.said.append("silent")
        return self.answers

    def speak_up(self) -> None:
        self.said.append("speak")


NO_ANSWER = QmpFailed("host: no answer to stop within 60 s")


@pytest.fixture
def said() -> list[str]:
    """What was asked of whom, in order."""
    return []


@pytest.fixture
def make(said: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., VirtualHost]:
    """Make a host whose machine and guest fail as told."""

    def made(
        *, host: Exception | None = None, guest: Exception | None = None, answers: bool = True
    ) -> VirtualHost:
        connection = Connection(said, answers)
        monkeypatch.setattr(VirtualHost, "ssh", connection)
        transport = SimpleNamespace(name="host")
        opened = VirtualHost(
            cast(Machine, Fake("host", said, host)), cast(Any, transport),
            qemu=cast(Any, None), guest=cast(Any, None),
        )  # fmt: skip
        guests = cast(Any, opened.machines)
        opened.kept = Fake("guest", said, guest)  # type: ignore[attr-defined]
        guests.add(opened.kept)  # type: ignore[attr-defined]
        return opened

    return made


def test_guests_stop_before_their_host_and_go_on_after_it(
    make: Callable[..., VirtualHost], said: list[str]
) -> None:
    host = make()

    host.stand_still()
    assert said == ["stop guest", "silent", "stop host"]

    host.machine.go_on()
    assert said[3:] == ["cont host", "speak", "cont guest"]


def test_a_guest_that_is_gone_does_not_keep_its_host_awake(
    make: Callable[..., VirtualHost], said: list[str]
) -> None:
    make(guest=MachineDied("guest: already ended")).stand_still()

    assert said == ["stop guest", "silent", "stop host"]


def test_a_guest_that_nobody_took_over_keeps_its_host_awake(
    make: Callable[..., VirtualHost], said: list[str]
) -> None:
    host = make()
    host.left = Left(cast(Any, None), "there")

    host.stand_still()

    assert said == []


def test_who_did_not_answer_once_is_not_asked_again(
    make: Callable[..., VirtualHost], said: list[str]
) -> None:
    host = make(guest=Unreachable("guest: the SSH connection is gone"))

    host.stand_still()
    host.stand_still()

    assert said == ["stop guest", "speak"]


def test_a_host_that_refuses_to_stop_is_kept(
    make: Callable[..., VirtualHost], said: list[str]
) -> None:
    refused = QmpFailed("host: QEMU refused stop", error_class="GenericError")

    with pytest.raises(QmpFailed, match="refused stop"):
        make(host=refused).stand_still()

    assert said[-1] == "stop host"


@pytest.mark.parametrize(
    ("broken", "asked"),
    [
        ({"guest": NO_ANSWER}, ["stop guest", "speak"]),
        ({"answers": False}, ["stop guest", "silent", "speak", "cont guest"]),
    ],
)
def test_what_does_not_answer_goes_on(
    make: Callable[..., VirtualHost],
    said: list[str],
    broken: dict[str, Any],
    asked: list[str],
) -> None:
    make(**broken).stand_still()

    assert said == asked


def test_a_host_that_never_stops_is_ended(
    make: Callable[..., VirtualHost], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    make(host=NO_ANSWER).stand_still()

    assert said[-2:] == ["stop host", "kill host"]
    assert "host: no answer to stop within 60 s" in caplog.text

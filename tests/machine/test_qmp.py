"""The blocking face of QMP against a server that says what it is told to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import MachineDied, QmpFailed, WaitTimeout
from harness.machine.qmp import Qmp

GREETING = {"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": []}}


class Server:
    """The far end: answers by a table of command to reply; ``None`` is silence."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.replies: dict[str, Any] = {"qmp_capabilities": {"return": {}}}
        self.asked: list[dict[str, Any]] = []
        self.say(GREETING)
        threading.Thread(target=self._serve, daemon=True).start()

    def say(self, message: Any) -> None:
        self.far.sendall(json.dumps(message).encode() + b"\r\n")

    def event(self, name: str, **data: object) -> None:
        self.say({"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 2}})

    def _serve(self) -> None:
        pending = ""
        while data := self.far.recv(65536):
            pending += data.decode()
            while pending.strip():
                request, end = json.JSONDecoder().raw_decode(pending.lstrip())
                pending = pending.lstrip()[end:]
                self.asked.append(request)
                self._answer(request)

    def _answer(self, request: dict[str, Any]) -> None:
        reply = self.replies.get(request["execute"])
        if reply == "hang up":
            self.far.shutdown(socket.SHUT_RDWR)
        elif reply is not None:
            self.say(reply | ({"id": request["id"]} if "id" in request else {}))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.far.close()


@pytest.fixture
def connect(server: Server, tmp_path: Path) -> Iterator[Callable[..., Qmp]]:
    made: list[Qmp] = []

    def start(**options: Any) -> Qmp:
        qmp = Qmp("box", tmp_path / "qmp.jsonl", **options)
        made.append(qmp)
        qmp.connect(server.near, timeout=5)
        return qmp

    yield start
    for qmp in made:
        qmp.close()


@pytest.fixture
def qmp(connect: Callable[..., Qmp]) -> Qmp:
    return connect()


def test_an_answer_is_returned(qmp: Qmp, server: Server) -> None:
    server.replies["query-kvm"] = {"return": {"enabled": True}}

    assert qmp.execute("query-kvm") == {"enabled": True}
    assert "arguments" not in server.asked[-1]


def test_a_monitor_command_is_returned_with_plain_line_ends(qmp: Qmp, server: Server) -> None:
    server.replies["human-monitor-command"] = {"return": "a\r\nb\r\n"}

    assert qmp.hmp("info mtree -f") == "a\nb\n"
    assert server.asked[-1]["arguments"] == {"command-line": "info mtree -f"}


def test_a_refusal_has_class_and_words(qmp: Qmp, server: Server) -> None:
    server.replies["device_add"] = {"error": {"class": "DeviceNotFound", "desc": "no bus 'x'"}}

    with pytest.raises(QmpFailed, match=r"refused device_add(.|\n)*no bus 'x'") as caught:
        qmp.execute("device_add", {"driver": "edu"})

    assert caught.value.error_class == "DeviceNotFound"


def test_no_answer_has_no_class(qmp: Qmp) -> None:
    with pytest.raises(QmpFailed, match=r"no answer to stop within 0.1 s") as caught:
        qmp.execute("stop", timeout=0.1)

    assert caught.value.error_class == ""


def test_a_late_answer_does_not_reach_the_next_command(qmp: Qmp, server: Server) -> None:
    with pytest.raises(QmpFailed):
        qmp.execute("stop", timeout=0.1)
    server.say({"return": "late", "id": server.asked[-1]["id"]})
    server.replies["cont"] = {"return": "in time"}

    assert qmp.execute("cont", timeout=5) == "in time"


def test_a_connection_that_ends_during_a_command_is_a_dead_machine(
    qmp: Qmp, server: Server
) -> None:
    server.replies["stop"] = "hang up"

    with pytest.raises(MachineDied, match="ended during stop"):
        qmp.execute("stop", timeout=5)
    with pytest.raises(MachineDied, match="ended during cont"):
        qmp.execute("cont", timeout=5)


def test_garbage_between_answers_is_named_as_the_cause(qmp: Qmp, server: Server) -> None:
    server.far.sendall(b"}{ this is no JSON\r\n")

    with pytest.raises(MachineDied, match=r"ended during stop(.|\n)*DeserializationError"):
        qmp.execute("stop", timeout=5)


def test_a_guard_says_why_a_connection_ended(connect: Callable[..., Qmp], server: Server) -> None:
    dead: list[bool] = []

    def guard() -> None:
        if dead:
            raise MachineDied("killed by 9")

    qmp = connect(guards=(guard,))
    dead.append(True)
    server.replies["stop"] = "hang up"

    with pytest.raises(MachineDied, match="killed by 9"):
        qmp.execute("stop", timeout=5)


def test_a_guard_ends_waiting_for_an_answer(connect: Callable[..., Qmp]) -> None:
    looks: list[int] = []

    def guard() -> None:
        looks.append(1)
        raise MachineDied("the host is gone")

    qmp = connect(guards=(guard,))

    with pytest.raises(MachineDied, match="the host is gone"):
        qmp.execute("stop", timeout=60)
    assert looks == [1]


def test_an_event_is_found_by_name_and_data(qmp: Qmp, server: Server) -> None:
    server.event("DEVICE_DELETED", path="/machine/x")
    server.event("DEVICE_DELETED", device="nvme")

    found = qmp.wait_event(
        "DEVICE_DELETED", timeout=5, where=lambda data: data.get("device") == "nvme"
    )

    assert found == {"device": "nvme"}


def test_an_event_before_the_mark_does_not_count(qmp: Qmp, server: Server) -> None:
    server.event("RESET", guest=False)
    qmp.wait_event("RESET", timeout=5)
    mark = qmp.mark()

    with pytest.raises(WaitTimeout, match=r"no event RESET within 0.1 s(.|\n)*last events: RESET"):
        qmp.wait_event("RESET", timeout=0.1, since=mark)
    server.event("RESET", guest=True)
    assert qmp.wait_event("RESET", timeout=5, since=mark) == {"guest": True}


def test_the_events_that_came_are_listed(qmp: Qmp, server: Server) -> None:
    server.event("RESET", guest=False)
    qmp.wait_event("RESET", timeout=5)
    mark = qmp.mark()
    server.event("RESET", guest=True)
    server.event("STOP")
    qmp.wait_event("STOP", timeout=5)

    assert qmp.events("RESET") == [{"guest": False}, {"guest": True}]
    assert qmp.events("RESET", since=mark) == [{"guest": True}]
    assert qmp.events("RESUME") == []


def test_a_guard_ends_waiting_for_an_event(qmp: Qmp) -> None:
    def dead() -> None:
        raise MachineDied("gone")

    with pytest.raises(MachineDied):
        qmp.wait_event("RESET", timeout=30, guards=(dead,))


def test_the_log_has_every_exchange_with_its_way(qmp: Qmp, server: Server, tmp_path: Path) -> None:
    server.replies["stop"] = {"return": {}}
    qmp.execute("stop")
    server.event("STOP")
    qmp.wait_event("STOP", timeout=5)
    qmp.close()

    entries = [json.loads(text) for text in (tmp_path / "qmp.jsonl").read_text().splitlines()]
    assert [entry["way"] for entry in entries] == ["<", ">", "<", "!"]
    assert entries[1]["message"] == {"execute": "stop", "arguments": {}}
    assert entries[2]["message"] == {"return": {}}
    assert entries[3]["message"]["event"] == "STOP"
    assert all(entry["time"] > 1e9 for entry in entries)


def test_a_full_disk_under_the_log_does_not_end_the_session(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    qmp = Qmp("box", Path("/dev/full"))
    qmp.connect(server.near, timeout=5)
    server.replies["stop"] = {"return": 1}

    assert qmp.execute("stop") == 1
    assert "is not complete" in caplog.text
    qmp.close()


def test_a_session_may_be_closed_twice(qmp: Qmp) -> None:
    qmp.close()
    qmp.close()

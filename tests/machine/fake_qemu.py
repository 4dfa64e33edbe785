"""A program that takes QEMU's command line, opens QEMU's sockets, and behaves as told.

``FAKE`` in the environment holds words that say how:

``refuse``    complain on stderr and exit with 1, before any socket
``die``       abort on SIGABRT, before any socket
``mute``      never open a socket
``deaf``      accept on QMP and never greet
``garbage``   greet with something that is not QMP
``hang-up``   accept on QMP, close at once, exit with 3
``busy``      one of two vCPUs is halted the fourth time that registers are asked for
``never-halts`` its vCPU is never halted
``late``      exit with 4 after the greeting
``no-console`` open no console
``old``       be of a version before ``file:`` addresses
``cannot``    know no migration capability
``blocked``   refuse to migrate
``failing``   say that a migration failed, with a reason
``endless``   never end a migration
``die-loading`` exit with 1 when asked to load a state
``panic``     print a panic on the console when asked to ``cont``, then exit at once, as
              ``-no-reboot`` does
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator

HOW = os.environ.get("FAKE", "").split()
STOPS: list[str] = []
BLOCKED = "State blocked by non-migratable device '0000:00:04.0/nvme'"
STATUS: dict[str, dict[str, object]] = {
    "failing": {"status": "failed", "error-desc": "No space left on device"},
    "endless": {"status": "active", "ram": {"remaining": 4096}},
}
PANIC = b"[ 1.0] Kernel panic - not syncing: sysrq triggered crash\r\n[ 1.0] CPU: 0 PID: 1\r\n"


def listen(name: str) -> socket.socket:
    for word in sys.argv:
        if word.startswith(f"socket,id={name},"):
            path = word.split("path=")[1].split(",")[0]
            server = socket.socket(socket.AF_UNIX)
            server.bind(path)
            server.listen()
            return server
    sys.exit(f"fake: no -chardev {name}")


def serve(server: socket.socket, console: list[socket.socket]) -> None:
    while True:
        peer = server.accept()[0]
        if "deaf" in HOW:
            continue
        if "garbage" in HOW:
            peer.sendall(b"220 mail.example.org ESMTP\r\n")
            continue
        if "hang-up" in HOW:
            peer.close()
            os._exit(3)
        say(peer, {"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": []}})
        for request in requests(peer):
            answer(peer, request, console)


def requests(peer: socket.socket) -> Iterator[dict[str, object]]:
    """Yield JSON objects; nothing but their braces ends them."""
    pending = ""
    while data := peer.recv(65536):
        pending = (pending + data.decode()).lstrip()
        while pending:
            try:
                request, end = json.JSONDecoder().raw_decode(pending)
            except ValueError:
                break
            yield request
            pending = pending[end:].lstrip()


def answer(peer: socket.socket, request: dict[str, object], console: list[socket.socket]) -> None:
    command = request["execute"]
    if command == "qmp_capabilities" and "late" in HOW:
        sys.stderr.write("fake: out of memory\n")
        sys.stderr.flush()
        os._exit(4)
    if command == "cont" and "panic" in HOW:
        console[0].sendall(PANIC)
        os._exit(0)
    if command == "migrate-incoming" and "die-loading" in HOW:
        sys.stderr.write("fake: error while loading state section id 2(ram)\n")
        sys.stderr.flush()
        os._exit(1)
    number = {"id": request["id"]} if "id" in request else {}
    if (command, "cannot" in HOW) == ("migrate-set-capabilities", True):
        refuse(peer, "Invalid parameter 'mapped-ram'", number)
    elif (command, "blocked" in HOW) == ("migrate", True):
        refuse(peer, BLOCKED, number)
    else:
        say(peer, {"return": result(str(command)), **number})
    if command == "quit":
        os._exit(0)


def result(command: str) -> object:
    if command == "query-version":
        return {"qemu": {"major": 7, "minor": 2} if "old" in HOW else {"major": 10, "minor": 0}}
    if command == "query-migrate":
        return next((STATUS[word] for word in HOW if word in STATUS), {"status": "completed"})
    if command == "human-monitor-command" and "busy" in HOW:
        STOPS.append(command)
        return f"CPU#0\r\nEIP=0 II=0 HLT=1\r\nCPU#1\r\nEIP=0 HLT={int(len(STOPS) > 3)}\r\n"
    if command == "human-monitor-command" and "never-halts" in HOW:
        return "CPU#0\r\nEIP=0 II=0 A20=1 SMM=0 HLT=0\r\n"
    if command == "query-status" and "runs" in HOW:
        return {"status": "running", "running": True}
    return {"asked": os.getpid() if command == "pid" else command}


def refuse(peer: socket.socket, text: str, number: dict[str, object]) -> None:
    say(peer, {"error": {"class": "GenericError", "desc": text}, **number})


def say(peer: socket.socket, message: object) -> None:
    peer.sendall(json.dumps(message).encode() + b"\r\n")


def main() -> None:
    if "refuse" in HOW:
        sys.exit("fake: -device nonsense: 'nonsense' is not a valid device model name")
    if "die" in HOW:
        sys.stderr.write("fake: assertion failed\n")
        sys.stderr.flush()
        os.abort()
    if "mute" in HOW:
        print("fake: I say nothing", flush=True)
        threading.Event().wait()
    console: list[socket.socket] = []
    if "no-console" not in HOW:
        ttys = listen("console")
        threading.Thread(target=lambda: console.append(ttys.accept()[0]), daemon=True).start()
    threading.Thread(target=serve, args=(listen("qmp-debug"), console), daemon=True).start()
    serve(listen("qmp"), console)


main()

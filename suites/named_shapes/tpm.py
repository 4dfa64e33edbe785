"""A TPM that agrees to everything, as far as QEMU asks before a guest uses it.

The control protocol is that of swtpm (QEMU ``backends/tpm/tpm_ioctl.h``): a number, arguments, and
an answer that begins with a result; with `_SET_DATA_FD` comes the socket for TPM commands.
"""

from __future__ import annotations

import array
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SET_DATA_FD: Final = 0x10
_ARGUMENTS: Final = {0x02: 4, 0x05: 4, 0x0B: 4, 0x11: 4, 0x13: 4}
"""Bytes that follow a command: init, set locality, …; none follow the others."""
_ANSWERS: Final = {
    0x01: bytes(4) + b"\xff" * 4,  # everything can be done
    0x04: bytes(8),
    0x11: bytes(4) + 3 * (4096).to_bytes(4, "big"),
}
"""Result 0 and what belongs to it; result 0 alone is the answer to the others."""
_TPM2_SUCCESS: Final = bytes.fromhex("8001 0000000a 00000000")


@contextlib.contextmanager
def agreeing_tpm(directory: Path) -> Iterator[Path]:
    """Have such a TPM while inside; yield its control socket."""
    path = directory / "tpm"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        ours: list[socket.socket] = []
        thread = threading.Thread(target=_serve, args=(listener, ours), daemon=True)
        thread.start()
        yield path
        for stream in (listener, *ours):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def _serve(listener: socket.socket, ours: list[socket.socket]) -> None:
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        control = stack.enter_context(listener.accept()[0])
        ours.append(control)
        while True:
            command, descriptors = _receive(control, 4)
            number = int.from_bytes(command, "big")
            if number in _ARGUMENTS:
                _receive(control, _ARGUMENTS[number])
            for descriptor in descriptors:
                data = stack.enter_context(socket.socket(fileno=descriptor))
                ours.append(data)
                threading.Thread(target=_answer, args=(data,), daemon=True).start()
            control.sendall(_ANSWERS.get(number, bytes(4)))


def _answer(data: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data.recv(4096):
            data.sendall(_TPM2_SUCCESS)


def _receive(stream: socket.socket, count: int) -> tuple[bytes, list[int]]:
    """Return *count* bytes and the descriptors that came with them.

    :raise OSError: the other end is gone.
    """
    found = array.array("i")
    data, ancillary, _, _ = stream.recvmsg(count, socket.CMSG_SPACE(found.itemsize))
    for _, _, payload in ancillary:
        found.frombytes(payload[: len(payload) // found.itemsize * found.itemsize])
    if len(data) < count:
        raise OSError("QEMU hung up")
    return data, list(found)

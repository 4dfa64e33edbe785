"""Bringing files to a host: images, a QEMU build, the static helper.

Content-addressed on the far side too: what is already there is not sent again.
"""

from __future__ import annotations

import io
import shlex
import tarfile
from pathlib import Path

from harness.guest.transport import Transport
from harness.step import step

REMOTE_CACHE = "/var/tmp/trapline"
"""On physical hosts; removed by ``rm -rf`` without loss."""


def supply(transport: Transport, source: Path, *, key: str) -> str:
    """Have the file or directory *source* on the far side; return its path there.

    :param key: hash of the content; names the directory.
    """
    home = f"{REMOTE_CACHE}/{key[:32]}"
    target = f"{home}/{source.name}"
    done = f"{home}/.complete-{source.name}"
    if transport.run(["test", "-e", done], check=False).exit_status == 0:
        return target
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(source, arcname=source.name)
    content = buffer.getvalue()
    with step("send %s to %s (%.1f MB)", source.name, transport.name, len(content) / 1e6):
        quoted = shlex.quote(home)
        transport.run(
            f"umask 022; mkdir -p {quoted} && tar -C {quoted} -xf - && touch {shlex.quote(done)}",
            stdin=content,
            timeout=900,
        )
    return target

"""Asking a device to go, until the guest lets go of it."""

from __future__ import annotations

import logging
import time

from harness.errors import QmpFailed, WaitTimeout
from harness.machine.qmp import Qmp
from harness.wait import Guard

log = logging.getLogger(__name__)

ASK_AGAIN = 8.0
"""Seconds after which a device that was asked to go is asked again."""


def ask_to_go(qmp: Qmp, device: str, *, timeout: float, guard: Guard) -> None:
    """Give ``device_del`` until DEVICE_DELETED comes; see `Machine.remove_device`.

    :raise WaitTimeout: the guest does not let go of it in *timeout* seconds.
    """
    since = qmp.mark()
    deadline = time.monotonic() + timeout
    asked = False
    while True:
        try:
            qmp.execute("device_del", {"id": device})
        except QmpFailed as error:
            if not asked or error.error_class != "DeviceNotFound":
                raise
            raise WaitTimeout(
                f"{qmp.name}: {device} is gone, but DEVICE_DELETED never came",
                seen=f"its flat views were read {qmp.flat_views_read} times before",
                evidence=qmp.log_path,
                hint="docs/findings/info-mtree-leaks-flat-views.md says why that matters",
            ) from error
        asked = True
        left = deadline - time.monotonic()
        try:
            qmp.wait_event(
                "DEVICE_DELETED",
                timeout=min(ASK_AGAIN, left),
                since=since,
                where=lambda data: data.get("device") == device,
                guards=(guard,),
            )
        except WaitTimeout:
            if left <= ASK_AGAIN:
                raise
            log.warning("%s: %s is still there, asked again", qmp.name, device)
        else:
            return

"""A matrix device that is being removed while somebody may have it: that write can wait."""

from __future__ import annotations

import threading

from harness.ap.attributes import Attributes
from harness.ap.matrix_device import MatrixDevice
from harness.errors import WaitTimeout

LONGEST = 60.0
"""Seconds that a removal may take in a test."""


class Removal:
    """Writes 1 to ``remove`` of *device* in a thread.

    :param attributes: a conversation of its own: the write may wait for long.
    """

    def __init__(self, attributes: Attributes, device: MatrixDevice) -> None:
        self._attributes = attributes
        self._device = device
        self._ended = threading.Event()
        self._error = ""
        self._trouble: Exception | None = None
        self._thread = threading.Thread(target=self._write, name="remove", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Say whether the write has returned."""
        return self._ended.is_set()

    def wait(self) -> str:
        """Wait until the write returns; return the errno, empty if the device is removed.

        :raise WaitTimeout: it does not return.
        """
        if not self._ended.wait(LONGEST):
            raise WaitTimeout(
                f"matrix device {self._device.uuid}: not removed within {LONGEST:g} s",
                hint="the kernel log says whom it has asked",
            )
        if self._trouble is not None:
            raise self._trouble
        return self._error

    def _write(self) -> None:
        path = f"{self._device.path}/remove"
        try:
            self._error = self._attributes.write(path, "1", timeout=LONGEST)
        except Exception as error:  # whoever waits hears of it, whatever it is
            self._trouble = error
        finally:
            self._ended.set()

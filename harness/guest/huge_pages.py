"""Huge pages that programs may ask Linux for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.errors import GuestError
from harness.guest.system import System

NUMBER = "/proc/sys/vm/nr_hugepages"


@contextlib.contextmanager
def huge_pages(system: System, count: int) -> Iterator[None]:
    """Have *count* pages of 2 MiB, or more, that programs may ask for while inside.

    Linux takes any number and makes as many as it finds memory for.

    :raise GuestError: it found too little for *count*.
    """
    before = int(system.read_text(NUMBER))
    with system.setting(NUMBER, str(max(before, count))):
        found = int(system.read_text(NUMBER))
        if found < count:
            raise GuestError(
                f"{system.name} has no {count} huge pages",
                seen=f"{found} in {NUMBER}",
                hint="its memory is scattered or used: try it after a restart, or give it more",
            )
        yield

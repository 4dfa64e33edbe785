"""ACPI tables as a system's kernel was given them."""

from __future__ import annotations

import base64

from harness.guest.system import System


def acpi_table(system: System, signature: str) -> bytes | None:
    """Return the table with *signature*, None if there is none."""
    path = f"/sys/firmware/acpi/tables/{signature}"
    if not system.exists(path):
        return None
    return base64.b64decode(system.run(["base64", path]).stdout)

"""Intel QuickAssist C62x: what its release notes and Linux's driver ask of a host. Pure.

Sources: release notes of "QAT17_SRIOV.VMW.700.1.1.0-7" (August 2020), sections 2.1 to 3.2, and
Linux ``drivers/crypto/intel/qat``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from harness.model import sriov
from harness.model.pci import Bdf, PciFunction, PciId

PF: Final = PciId(0x8086, 0x37C8)
VF: Final = PciId(0x8086, 0x37C9)
CLASS: Final = 0x0B4000
"""Co-processor."""
TOTAL_VFS: Final = 16
FIRST_VF_OFFSET: Final = 8
VF_STRIDE: Final = 1

MUST_BE_MASKED: Final = 1 << 14 | 1 << 20 | 1 << 22
"""Completion Timeout, Unsupported Request, Uncorrectable Internal Error (PCIe 6.0, 7.8.4.3)."""

HB_INTERVAL: Final = range(500, 5000 + 1)
"""``hb_interval`` of ESXi's driver, milliseconds."""
QUIESCE_TIMEOUT: Final = range(350, 20000 + 1)
"""``quiesce_timeout`` of ESXi's driver, milliseconds."""

_AER: Final = 0x01
_FATAL = re.compile(r"c6xxvf (\S+): Fatal error received from PF (0x[0-9a-f]+)")


def virtual_functions(physical: Bdf, count: int = TOTAL_VFS) -> tuple[Bdf, ...]:
    """Return where the virtual functions of *physical* are."""
    return sriov.virtual_functions(physical, count, first=FIRST_VF_OFFSET, stride=VF_STRIDE)


def uncorrectable_mask(function: PciFunction) -> int:
    """Return the AER Uncorrectable Error Mask.

    :raise ValueError: extended configuration space was not read, or it has no AER.
    """
    return _number(function, _place(function, _AER) + 8)


def unmasked(function: PciFunction) -> int:
    """Return the bits of `MUST_BE_MASKED` that are not."""
    return MUST_BE_MASKED & ~uncorrectable_mask(function)


def heartbeat_complaints(hb_interval: int, quiesce_timeout: int) -> tuple[str, ...]:
    """Say what is wrong with these parameters of ESXi's driver, in milliseconds."""
    given: Sequence[tuple[str, int, range]] = (
        ("hb_interval", hb_interval, HB_INTERVAL),
        ("quiesce_timeout", quiesce_timeout, QUIESCE_TIMEOUT),
    )
    return tuple(
        f"{name} {value} ms is not within {allowed.start} and {allowed.stop - 1}"
        for name, value, allowed in given
        if value not in allowed
    )


def fatal_errors(kernel_log: str) -> tuple[tuple[str, int], ...]:
    """Return function and code of each fatal error that a guest's driver was told of."""
    return tuple((m[1], int(m[2], 16)) for m in _FATAL.finditer(kernel_log))


def _place(function: PciFunction, cap_id: int) -> int:
    for capability in function.capabilities:
        if capability.extended and capability.id == cap_id:
            return capability.offset
    raise ValueError(f"{function.bdf} shows no extended capability {cap_id:#x}")


def _number(function: PciFunction, at: int) -> int:
    data = function.config[at : at + 4]
    if len(data) < 4:
        raise ValueError(f"{function.bdf}: only {len(function.config)} bytes of configuration")
    return int.from_bytes(data, "little")

"""What the hardware would interpret: the crypto control block at the entry of SIE. Pure.

Layout: arch/s390/include/asm/kvm_host.h, ``struct kvm_s390_sie_block`` and
``struct kvm_s390_crypto_cb``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import ParseError
from harness.model.ap.mask import ApMask

SIE_INSTRUCTION = b"\xb2\x14"
SIE_BLOCK_SIZE = 512
CRYCB_SIZE = 256

_ECA_APIE = 0x8
"""``ECA_APIE``: AP instructions are interpreted."""
_FORMAT0, _FORMAT1, _FORMAT2 = 0, 1, 3
_ICPTCODE_AT, _ECA_AT, _IPA_AT, _IPB_AT, _CRYCBD_AT = 0x50, 0x4C, 0x56, 0x58, 0xFC
INTERCEPT_INSTRUCTION = 0x04
"""Code of an intercept because of an instruction."""


@dataclass(frozen=True, slots=True)
class SieEntry:
    """A processor of a guest, about to run: what of the adapters it could use.

    :param block: physical address of the SIE block.
    :param interprets: AP instructions of the guest go to the adapters (``ECA_APIE``).
    :param format: of the crypto control block: 0, 1 (64 adapters, 16 domains) or 2 (256 each).
    """

    block: int
    interprets: bool
    format: int
    adapters: ApMask
    domains: ApMask
    control_domains: ApMask

    def __str__(self) -> str:
        ids = {
            "adapters": self.adapters, "domains": self.domains, "control": self.control_domains,
        }  # fmt: skip
        words = [
            f"{name} {','.join(f'{one:02x}' for one in mask) or '-'}" for name, mask in ids.items()
        ]
        return f"CRYCB format {self.format}, " + ", ".join(words)


ReadPhysical = Callable[[int, int], bytes]


def read_sie_entry(block: int, read: ReadPhysical) -> SieEntry:
    """Read the entry whose SIE block is at *block*.

    :param read: returns physical memory: address, size.
    :raise ParseError: the crypto control block has a format that none has.
    """
    said = read(block, SIE_BLOCK_SIZE)
    designation = int.from_bytes(said[_CRYCBD_AT : _CRYCBD_AT + 4], "big")
    interprets = bool(int.from_bytes(said[_ECA_AT : _ECA_AT + 4], "big") & _ECA_APIE)
    form = designation & 3
    crycb = read(designation & 0x7FFFFFF8, CRYCB_SIZE)
    if form in (_FORMAT0, _FORMAT1):
        # ``apcb0``: one doubleword each, of which 64 adapters and 16 domains count.
        masks = [_mask(crycb[at : at + 8]) for at in (0, 8, 16)]
    elif form == _FORMAT2:
        masks = [_mask(crycb[at : at + 32]) for at in (0x80, 0xA0, 0xC0)]
    else:
        raise ParseError(
            "a crypto control block of unknown format", text=f"{designation:#x}", where="SIE block"
        )
    return SieEntry(block, interprets, {3: 2}.get(form, form), *masks)


def _mask(data: bytes) -> ApMask:
    return ApMask(int.from_bytes(data.ljust(32, b"\0"), "big"))


@dataclass(frozen=True, slots=True)
class SyntheticExit:
    """An intercept that we make up: the guest is said to have executed an instruction.

    :param instruction: its first bytes, at least two; ``b2af`` is PQAP.
    :param gprs: general registers of the guest, by number; those from 0 to 13.
    """

    instruction: bytes
    gprs: tuple[tuple[int, int], ...] = ()

    def writes(self, block: int) -> tuple[tuple[int, bytes], ...]:
        """Return what is written to physical memory for it."""
        padded = self.instruction.ljust(6, b"\0")
        return (
            (block + _ICPTCODE_AT, bytes([INTERCEPT_INSTRUCTION])),
            (block + _IPA_AT, padded[:2]),
            (block + _IPB_AT, padded[2:6]),
        )


def find_sie(code: bytes) -> int:
    """Return the offset of the SIE instruction in the code of ``__sie64a``.

    :raise ParseError: there is none.
    """
    at = 0
    while at + 2 <= len(code):
        if code[at : at + 2] == SIE_INSTRUCTION:
            return at
        at += 2 if code[at] < 0x40 else 4 if code[at] < 0xC0 else 6
    raise ParseError("no SIE instruction", text=code.hex(), where="__sie64a")

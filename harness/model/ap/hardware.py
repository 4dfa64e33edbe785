"""What the machine has: the answers of PQAP that the kernel builds its AP devices from."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.model.ap.id import IDS, Apqn
from harness.model.ap.mask import ApMask

CEX4 = 10
"""Type of the oldest card that Linux, and so vfio_ap, makes devices of."""
CEX8 = 14
"""Type of the newest card that these kernels know."""


class Response(enum.IntEnum):
    """Response codes of PQAP (arch/s390/include/asm/ap.h, drivers/s390/crypto/ap_bus.h)."""

    NORMAL = 0x00
    Q_NOT_AVAIL = 0x01
    RESET_IN_PROGRESS = 0x02
    DECONFIGURED = 0x03
    CHECKSTOPPED = 0x04
    BUSY = 0x05
    STATE_CHANGE_IN_PROGRESS = 0x0A


class Mode(enum.IntEnum):
    """What a card is loaded as: the one facility bit that says so."""

    CCA = 0x10000000
    ACCELERATOR = 0x08000000
    EP11 = 0x04000000

    @property
    def letter(self) -> str:
        """The letter in the name of the card's type: ``CEX7A``."""
        return {Mode.CCA: "C", Mode.ACCELERATOR: "A", Mode.EP11: "P"}[self]


@dataclass(frozen=True, slots=True)
class Card:
    """A crypto card as TAPQ describes it."""

    hwtype: int = 13
    """10 is CEX4, 13 is CEX7."""
    mode: Mode = Mode.ACCELERATOR
    configured: bool = True
    checkstopped: bool = False

    @property
    def response(self) -> Response:
        """The response code of instructions to its queues."""
        if not self.configured:
            return Response.DECONFIGURED
        return Response.CHECKSTOPPED if self.checkstopped else Response.NORMAL

    @property
    def type_name(self) -> str:
        """``CEX7A``."""
        return f"CEX{self.hwtype - 6}{self.mode.letter}"


@dataclass(frozen=True, slots=True)
class ApConfiguration:
    """The masks of PQAP(QCI), which the kernel compares from scan to scan."""

    adapters: ApMask = field(default_factory=ApMask)
    domains: ApMask = field(default_factory=ApMask)
    control_domains: ApMask = field(default_factory=ApMask)


@dataclass(frozen=True, slots=True)
class ApHardware:
    """Cards, domains and control domains of the partition: its level of the filter.

    Every card has every domain. The highest ids are what QCI says with APXA installed.
    """

    cards: Mapping[int, Card] = field(default_factory=dict)
    domains: ApMask = field(default_factory=ApMask)
    control_domains: ApMask = field(default_factory=ApMask)
    max_adapter: int = IDS - 1
    max_domain: int = IDS - 1
    resets: Mapping[Apqn, int] = field(default_factory=dict)
    """Response codes that ZAPQ of a card that is on ends with, where it is not NORMAL."""

    @property
    def configuration(self) -> ApConfiguration:
        """What QCI answers."""
        return ApConfiguration(ApMask.of(self.cards), self.domains, self.control_domains)

    def zapq(self, apqn: Apqn) -> int:
        """Return the response code that a reset of *apqn* ends with.

        A card that is off answers so, whatever its resets would end with.
        """
        card = self.cards.get(apqn.adapter)
        if card is None or apqn.domain not in self.domains:
            return Response.Q_NOT_AVAIL
        if card.response != Response.NORMAL:
            return card.response
        return self.resets.get(apqn, Response.NORMAL)

    def plugged(self, adapter: int, card: Card) -> ApHardware:
        """Return this machine with *card* at *adapter*, whatever was there."""
        return replace(self, cards={**self.cards, adapter: card})

    def unplugged(self, adapter: int) -> ApHardware:
        """Return this machine without a card at *adapter*."""
        kept = {number: card for number, card in self.cards.items() if number != adapter}
        return replace(self, cards=kept)

    def with_reset(self, apqn: Apqn, code: int | None) -> ApHardware:
        """Return this machine with resets of *apqn* ending in *code*; None: as usual.

        :raise ValueError: *code* is one after which the kernel asks again for ever.
        """
        if code in (Response.RESET_IN_PROGRESS, Response.BUSY, Response.STATE_CHANGE_IN_PROGRESS):
            raise ValueError(f"a reset cannot end with {code:#04x}: the kernel never gives up")
        kept = {queue: known for queue, known in self.resets.items() if queue != apqn}
        return replace(self, resets=kept if code is None else {**kept, apqn: code})

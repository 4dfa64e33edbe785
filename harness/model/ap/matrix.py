"""A matrix of AP queues: adapters times domains, and control domains beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from harness.model.ap.errno import Errno, KernelError
from harness.model.ap.id import Apqn
from harness.model.ap.mask import ApMask

_CONFIG_LENGTH = 3 * (2 + 64 + 1)
"""Characters of ap_config that are looked at (``AP_CONFIG_STRLEN``)."""


@dataclass(frozen=True, slots=True)
class ApMatrix:
    """Adapters (APM), usage domains (AQM) and control domains (ADM)."""

    adapters: ApMask = field(default_factory=ApMask)
    domains: ApMask = field(default_factory=ApMask)
    control_domains: ApMask = field(default_factory=ApMask)

    @classmethod
    def of(
        cls, adapters: Iterable[int], domains: Iterable[int], control_domains: Iterable[int] = ()
    ) -> ApMatrix:
        """Return the matrix of these ids."""
        return cls(ApMask.of(adapters), ApMask.of(domains), ApMask.of(control_domains))

    def __iter__(self) -> Iterator[Apqn]:
        """Yield the queues, in the order the kernel lists them."""
        for adapter in self.adapters:
            for domain in self.domains:
                yield Apqn(adapter, domain)

    def __contains__(self, apqn: Apqn) -> bool:
        return apqn.adapter in self.adapters and apqn.domain in self.domains

    def __len__(self) -> int:
        return len(self.adapters) * len(self.domains)

    def shared(self, other: ApMatrix) -> ApMatrix:
        """Return the queues that both have; no control domains, which may be shared."""
        return ApMatrix(self.adapters & other.adapters, self.domains & other.domains)

    def without_adapters(self, adapters: ApMask) -> ApMatrix:
        """Return this matrix less *adapters*."""
        return replace(self, adapters=self.adapters - adapters)

    def without_domains(self, domains: ApMask) -> ApMatrix:
        """Return this matrix less the usage *domains*."""
        return replace(self, domains=self.domains - domains)

    def matrix_text(self) -> str:
        """Return what ``matrix`` and ``guest_matrix`` show (``vfio_ap_mdev_matrix_show``).

        With adapters alone ``05.``, with domains alone ``.0047``, with neither nothing.
        """
        if self.adapters and self.domains:
            return "".join(f"{apqn}\n" for apqn in self)
        if self.adapters:
            return "".join(f"{adapter:02x}.\n" for adapter in self.adapters)
        return "".join(f".{domain:04x}\n" for domain in self.domains)

    def control_domains_text(self) -> str:
        """Return what ``control_domains`` shows."""
        return "".join(f"{domain:04x}\n" for domain in self.control_domains)

    def config_text(self) -> str:
        """Return what ``ap_config`` shows: three masks and a newline."""
        return f"{self.adapters},{self.domains},{self.control_domains}\n"

    @classmethod
    def config(cls, text: str) -> ApMatrix:
        """Read what is written to ``ap_config`` (``ap_config_store``).

        A newline separates masks as a comma does, so ``echo 0x04,0x`` gives three (the last is
        empty), and what follows the third is not looked at.

        :raise KernelError: EINVAL for fewer than three masks, or one that is none.
        """
        parts = text[:_CONFIG_LENGTH].replace("\n", ",").split(",")[:3]
        if len(parts) < 3:
            raise KernelError(Errno.EINVAL)
        adapters, domains, control_domains = map(ApMask.written, parts)
        return cls(adapters, domains, control_domains)

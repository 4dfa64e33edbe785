"""Sets of options of intel-iommu, all at once: which are refused and why, which are accepted.

The words of each refusal are those of `harness.model.vtd.refusals`; here is when each applies in
a set that has everything. QEMU says the first that it finds (``x86_iommu_realize()``, then
``vtd_realize()`` and ``vtd_decide_config()``): which one is left open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from harness.model.combinations import Strength, combine
from harness.model.version import QemuVersion
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.expected import Irqchip, remaps_interrupts
from harness.model.vtd.properties import Value, lacking
from harness.model.vtd.refusals import PASID_BITS, REFUSALS

Choice = Irqchip | Value | None
"""A value of an option; None: it is not said."""
Row = Mapping[str, Choice]

IRQCHIP: Final = "irqchip"
OPTIONS: Final[Mapping[str, Sequence[Choice]]] = {
    IRQCHIP: (Irqchip.SPLIT, Irqchip.ON, Irqchip.TCG),
    "intremap": (None, True, False),
    "eim": (None, True, False),
    "scalable-mode": (None, True),
    "fsts": (None, True),
    "aw-bits": (None, 39, 48, 40),
    "pasid-bits": (None, PASID_BITS),
    "device-iotlb": (None, True),
    "dma-drain": (None, False),
    "caching-mode": (None, True),
    "snoop-control": (None, True),
    "dma-translation": (None, False),
    "pt": (None, False),
    "stale-tm": (None, True),
}
"""Every option that a set has; what is refused is decided by those in front."""


@dataclass(frozen=True, slots=True)
class Reason:
    """When a case of `REFUSALS` applies, by the options *needs* and nothing else."""

    case: str
    needs: tuple[str, ...]
    applies: Callable[[Row], bool]


def _without_remapping(row: Row) -> bool:
    intremap, irqchip = row["intremap"], row[IRQCHIP]
    assert isinstance(irqchip, Irqchip)
    if intremap and irqchip is Irqchip.ON:
        return False  # refused before
    remaps = remaps_interrupts(None if intremap is None else bool(intremap), irqchip)
    return bool(row["eim"]) and not remaps


_WIDTHS: Final = (None, 39, 48)
_STAGES: Final = ("scalable-mode", "fsts", "aw-bits")

REASONS: Final = (
    Reason("intremap with a full irqchip", (IRQCHIP, "intremap"),
           lambda r: bool(r["intremap"]) and r[IRQCHIP] is Irqchip.ON),
    Reason("eim without intremap", (IRQCHIP, "intremap", "eim"), _without_remapping),
    Reason("first stage outside of scalable mode", ("scalable-mode", "fsts"),
           lambda r: bool(r["fsts"]) and not r["scalable-mode"]),
    Reason("aw-bits 40", _STAGES,
           lambda r: r["aw-bits"] not in _WIDTHS and not r["scalable-mode"] and not r["fsts"]),
    Reason("aw-bits 40 in scalable mode", _STAGES,
           lambda r: (r["aw-bits"] not in _WIDTHS and bool(r["scalable-mode"])
                      and not r["fsts"])),
    Reason("aw-bits 39 with a first stage", _STAGES,
           lambda r: bool(r["scalable-mode"] and r["fsts"]) and r["aw-bits"] not in (None, 48)),
    Reason("scalable mode without draining", ("scalable-mode", "dma-drain"),
           lambda r: bool(r["scalable-mode"]) and r["dma-drain"] is False),
    Reason("PASID outside of scalable mode", ("scalable-mode", "pasid-bits"),
           lambda r: bool(r["pasid-bits"]) and not r["scalable-mode"]),
    Reason("PASID with a device TLB", ("pasid-bits", "device-iotlb"),
           lambda r: bool(r["pasid-bits"] and r["device-iotlb"])),
)  # fmt: skip
_CASES: Final = {case.name: case for case in REFUSALS}


def reasons(row: Row) -> tuple[Reason, ...]:
    """Return why *row* may be refused; of a part of a set, what is certain already."""
    return tuple(r for r in REASONS if row.keys() >= set(r.needs) and r.applies(row))


def expected_words(
    row: Row, version: QemuVersion, properties: Set[str], *, kvm: bool
) -> frozenset[str]:
    """Return what QEMU may say against *row*, one of them; empty: it accepts."""
    said = (_CASES[r.case].expected(version, properties, kvm=kvm) for r in reasons(row))
    return frozenset(words for words in said if words is not None)


def acceptable(row: Row) -> bool:
    """Say whether no release refuses *row*, or may still not if it is a part of a set."""
    return not reasons(row)


def told(row: Row, properties: Set[str]) -> dict[str, Choice]:
    """Return *row* as a build with *properties* can be told it: what it has not is not said."""
    return {
        name: None if _cannot(name, value, properties) else value for name, value in row.items()
    }


def _cannot(name: str, value: Choice, properties: Set[str]) -> bool:
    if value is None or isinstance(value, Irqchip):
        return False
    return bool(lacking("intel-iommu", {name: value}, properties))


def config_of(row: Row) -> VtdConfig:
    """Return the set-up that *row* stands for."""
    irqchip = row[IRQCHIP]
    assert isinstance(irqchip, Irqchip)
    said = tuple(
        (name, value)
        for name, value in row.items()
        if value is not None and not isinstance(value, Irqchip)
    )
    return VtdConfig(irqchip, said)


def any_sets(strength: Strength) -> list[dict[str, Choice]]:
    """Return option sets, whatever becomes of them."""
    return combine(OPTIONS, strength)


def good_sets(strength: Strength) -> list[dict[str, Choice]]:
    """Return option sets that no release refuses: among them each pair that can be."""
    return combine(_GOOD, strength, possible=acceptable)


_GOOD: Final = {
    name: tuple(value for value in values if value != 40) for name, values in OPTIONS.items()
}

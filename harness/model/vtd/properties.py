"""Properties of QEMU's IOMMU devices by what they mean, and how each build calls them.

Tests and set-ups say an option by the name that the newest build gives it. What a build at hand
has (``-device NAME,help``) decides how it is said there, or that it cannot be said; versions are
here only to tell which builds have it, and for the rule that is about them (VTD-26).

Sources: ``vtd_properties`` of ``hw/i386/intel_iommu.c`` and ``x86_iommu_properties`` of
``hw/i386/x86-iommu.c`` per tag up to 10.2; observed on 10.0.13 and 11.1.3. Release 11.0 was not
looked at: its development tree still said ``x-flts``.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from harness.model.version import QemuVersion

Value = str | int | bool
Release = tuple[int, int]

UNSEEN: tuple[Release, Release] = ((11, 0), (11, 1))
"""From the first of these on and before the second, the names of intel-iommu may be either."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """A name of a property.

    :param since: the release that brought it.
    :param until: the release that has it no longer; None: the newest one has it.
    :param is_switch: it takes on and off where its successor takes a number.
    """

    name: str
    since: Release
    until: Release | None = None
    is_switch: bool = False

    def value(self, value: Value) -> Value:
        """Return how *value* is said by this name."""
        return bool(value) if self.is_switch else value

    def expected_in(self, version: QemuVersion) -> bool | None:
        """Say whether *version* must have it; None: nobody has looked."""
        first, last = UNSEEN
        unseen = version.has(*first) and (version.major, version.minor) < last
        if unseen and last in (self.since, self.until):
            return None
        return version.has(*self.since) and not (
            self.until is not None and version.has(*self.until)
        )

    @property
    def builds(self) -> str:
        """Say which builds have it."""
        since = f"QEMU {self.since[0]}.{self.since[1]}"
        if self.until is None:
            return f"{since} and later"
        return f"{since} and later, before {self.until[0]}.{self.until[1]}"


_GONE: Release = (11, 1)

INTEL_IOMMU: Mapping[str, tuple[Spelling, ...]] = {
    "eim": (Spelling("eim", (2, 8)),),
    "caching-mode": (Spelling("caching-mode", (2, 9)),),
    "intremap": (Spelling("intremap", (2, 10)),),
    "device-iotlb": (Spelling("device-iotlb", (2, 10)),),
    "pt": (Spelling("pt", (2, 10), _GONE),),
    "aw-bits": (Spelling("aw-bits", (4, 0)), Spelling("x-aw-bits", (2, 12), (4, 0))),
    "scalable-mode": (
        Spelling("scalable-mode", _GONE),
        Spelling("x-scalable-mode", (4, 0), _GONE),
    ),
    "dma-drain": (Spelling("dma-drain", (4, 0), _GONE),),
    "snoop-control": (Spelling("snoop-control", (7, 0)),),
    "dma-translation": (Spelling("dma-translation", (7, 1)),),
    "pasid-bits": (
        Spelling("pasid-bits", _GONE),
        Spelling("x-pasid-mode", (7, 2), _GONE, is_switch=True),
    ),
    "stale-tm": (Spelling("stale-tm", (9, 2)),),
    "fsts": (Spelling("fsts", _GONE), Spelling("x-flts", (10, 0), _GONE)),
    "fs1gp": (Spelling("fs1gp", (10, 0)),),
    "svm": (Spelling("svm", (11, 0)),),
    "x-buggy-eim": (Spelling("x-buggy-eim", (2, 8), (11, 0)),),
}
"""By meaning; the newest name first."""

DEVICES: Mapping[str, Mapping[str, tuple[Spelling, ...]]] = {
    "intel-iommu": INTEL_IOMMU,
    "virtio-iommu-pci": {"aw-bits": (Spelling("aw-bits", (9, 0)),)},
}


def spelling(driver: str, name: str, properties: Set[str]) -> Spelling | None:
    """Return how a build with *properties* says option *name* of *driver*; None: it cannot."""
    return next((s for s in DEVICES[driver][name] if s.name in properties), None)


def arguments(driver: str, options: Mapping[str, Value], properties: Set[str]) -> dict[str, Value]:
    """Return *options* as a build with *properties* takes them on its command line.

    An option that the build has not is given by its newest name, for the build to refuse: ask
    `lacking` first.
    """
    said: dict[str, Value] = {}
    for name, value in options.items():
        how = spelling(driver, name, properties)
        if how is None:
            said[name] = value
        else:
            said[how.name] = how.value(value)
    return said


def lacking(driver: str, options: Mapping[str, Value], properties: Set[str]) -> str:
    """Say which of *options* a build with *properties* has not, and which builds have them.

    Empty if there is none.
    """
    reasons = []
    for name in options:
        if spelling(driver, name, properties) is None:
            known = (f"{s.name} ({s.builds})" for s in DEVICES[driver][name])
            reasons.append(f"{driver} has no property {' or '.join(known)}")
    return "; ".join(reasons)


def wrong_properties(found: Set[str], version: QemuVersion) -> tuple[str, ...]:
    """Say which properties of *found* should not be there, and which should and are not.

    Where nobody has looked which of two names a release has, it must have one of them.
    """
    wrong = []
    for names in INTEL_IOMMU.values():
        for name, expected in ((s.name, s.expected_in(version)) for s in names):
            if expected is not None and expected != (name in found):
                wrong.append(f"{name} {'is missing' if expected else 'is there'}")
        either = [s.name for s in names if s.expected_in(version) is None]
        if len(either) > 1 and not found & set(either):
            wrong.append(f"{' or '.join(either)} is missing")
    return tuple(wrong)

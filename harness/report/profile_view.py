"""What a profile says, and what looking at a device gave: for people and for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.model.profile import Answer, Defect, DeviceProfile, Finding, SeenDevice, check

_SIGN = {Answer.HOLDS: "holds    ", Answer.DIFFERS: "DIFFERS  ", Answer.UNASKED: "not asked"}


def finding_lines(
    profile: DeviceProfile, where: str, findings: Sequence[Finding]
) -> Iterator[str]:
    """Yield what was found, an item a line, and the defects that are known."""
    yield f"{profile.name}: {profile.title}"
    yield f"looked at: {where}"
    width = max((len(one.item) for one in findings), default=0)
    for one in findings:
        yield f"  {_SIGN[one.answer]}  {one.item:<{width}}  {_said(one)}"
        for defect in one.defects:
            mark = "known defect" if one.answer is Answer.HOLDS else "would be a known defect"
            yield f"  {'':9}  {'':<{width}}  {mark}: {defect.text}"
    yield counts(findings)
    for defect in profile.defects:
        if not defect.item:
            yield f"  also known: {defect.text} [{defect.source}]"


def _said(one: Finding) -> str:
    if one.answer is Answer.HOLDS:
        return one.wanted if one.wanted == one.found else f"{one.wanted}: {one.found}"
    if one.answer is Answer.DIFFERS:
        return f"wanted {one.wanted}; found {one.found}"
    return f"wanted {one.wanted}; {one.found}"


def counts(findings: Sequence[Finding]) -> str:
    """Return how many of each."""
    parts = [f"{sum(one.answer is answer for one in findings)} {answer}" for answer in Answer]
    return ", ".join(parts)


def finding_dict(
    profile: DeviceProfile, where: str, findings: Sequence[Finding]
) -> dict[str, object]:
    """Return the same for ``--json``."""
    return {
        "profile": profile.name,
        "looked_at": where,
        "items": [
            {
                "item": one.item,
                "answer": one.answer.value,
                "wanted": one.wanted,
                "found": one.found,
                "defects": [_defect_dict(defect) for defect in one.defects],
            }
            for one in findings
        ],
        "defects": [_defect_dict(defect) for defect in profile.defects],
    }


def _defect_dict(defect: Defect) -> dict[str, str]:
    return {"text": defect.text, "source": defect.source, "item": defect.item}


def profile_lines(profile: DeviceProfile) -> Iterator[str]:
    """Yield what *profile* says, an item a line."""
    yield f"{profile.name}: {profile.title}"
    yield f"source: {profile.source}"
    wanted = check(profile, SeenDevice(None))
    width = max((len(one.item) for one in wanted), default=0)
    for one in wanted:
        yield f"  {one.item:<{width}}  {one.wanted}"
    for defect in profile.defects:
        about = f"{defect.item}: " if defect.item else ""
        yield f"defect: {about}{defect.text} [{defect.source}]"
    stand_in = profile.stand_in
    if stand_in.qemu:
        yield f"on a virtual host: QEMU's {stand_in.qemu}"
    elif stand_in.shapes:
        yield f"on a virtual host: models in Python ({', '.join(stand_in.shapes)})"

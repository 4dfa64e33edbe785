"""vhost below an IOMMU that maps: whose bytes it reads and writes, and until when.

A bare driver asks something that the host's kernel answers by itself (`suites.virtio.dialogue`):
vhost reads the request and writes the answer. Mappings are made by hand: rings and packets lie
4 MiB from where the device is told. Then the buffer is mapped elsewhere, and asked again: who
keeps a translation that was taken back writes to the wrong page.
"""

from __future__ import annotations

import pytest

from harness.machine.bare_virtio import ACCESS_PLATFORM
from harness.testing import must_fail
from suites.virtio.conftest import (
    INVALIDATE,
    MISS,
    PLACES,
    RX_BUFFER,
    TRANSLATE,
    VSOCK,
    Answers,
    AskTwice,
    Forget,
    Lies,
)
from suites.virtio.dialogue import TALKS, VSOCK_TALK, Dialogue

pytestmark = pytest.mark.full

_OF_DEVICE = f"dev {VSOCK.bus:02x}:{VSOCK.device:02x}.{VSOCK.function:02x} "
EACH = pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)


def lying(talk: Dialogue, **numbers: int) -> Lies:
    """Return what lies where: answers by place (``_`` for a blank), nothing elsewhere."""
    said = {name.replace("_", " "): talk.answer(number) for name, number in numbers.items()}
    return {name: said.get(name, bytes(len(talk.answer(0)))) for name in PLACES}


def check_lies(seen: Lies, wanted: Lies) -> None:
    """The answers lie where they should, and nothing anywhere else."""
    wrong = {name: data.hex() for name, data in seen.items() if data != wanted[name]}
    assert not wrong, f"in the wrong place, or not there: {wrong}"


def check_translated(came: Answers) -> None:
    """The answer lies where the tables lead, and vhost asked QEMU, and QEMU the unit, for that."""
    assert came.started.runs, came.started
    check_lies(came.first, lying(came.talk, mapped=0))
    assert came.started.offered & ACCESS_PLATFORM, f"features {came.started.offered:#x}"
    where = f"iova {RX_BUFFER:#x} -> gpa {PLACES['mapped']:#x} "
    assert came.count(TRANSLATE, _OF_DEVICE + where), f"nobody asked for {where}"
    assert came.count(MISS, "step 2"), "vhost asked for no translation"


def check_bypassed(came: Answers) -> None:
    """The answer lies where the device was told, and nobody asked for anything."""
    assert came.started.runs, came.started
    check_lies(came.first, lying(came.talk, same_number=0))
    asked = came.count(TRANSLATE, _OF_DEVICE), came.count(MISS)
    assert asked == (0, 0), f"{asked[0]} translations, {asked[1]} questions"


@EACH
@pytest.mark.parametrize("ats", [False, True], ids=["plain", "ats"])
@pytest.mark.rule("VTD-58")
@pytest.mark.negative_control("VTD-59")
def test_data_of_vhost_are_translated(ask_twice: AskTwice, talk: Dialogue, ats: bool) -> None:
    """vhost with ``iommu_platform=on`` reads and writes what is mapped, with ATS or without."""
    came = ask_twice(talk, Forget.DEVICE if ats else Forget.UNIT, ats=ats)

    check_translated(came)
    with must_fail():
        check_bypassed(came)


@EACH
@pytest.mark.rule("VTD-59")
@pytest.mark.negative_control("VTD-58")
def test_data_of_other_vhost_bypass(ask_twice: AskTwice, talk: Dialogue) -> None:
    """vhost without it reads and writes where it is told, past a unit that maps elsewhere."""
    came = ask_twice(talk, Forget.UNIT, platform=False)

    check_bypassed(came)
    with must_fail():
        check_translated(came)


def check_forgot(came: Answers) -> None:
    """The second answer lies where the page is mapped now, the first still where it was."""
    check_lies(came.second, lying(came.talk, mapped=0, moved=1))


def check_kept(came: Answers) -> None:
    """The second answer lies where the page was mapped once."""
    check_lies(came.second, lying(came.talk, mapped=1))


@EACH
@pytest.mark.parametrize(
    ("ats", "forget"),
    [(False, Forget.UNIT), (True, Forget.DEVICE)],
    ids=["plain", "ats"],
)
@pytest.mark.rule("VTD-58")
def test_vhost_forgets_what_it_is_told_to(
    ask_twice: AskTwice, talk: Dialogue, ats: bool, forget: Forget
) -> None:
    """Told by the unit's invalidation, or with ATS by the device's, vhost asks again."""
    check_forgot(ask_twice(talk, forget, ats=ats))


@pytest.mark.rule("VTD-54")
def test_with_ats_only_the_device_invalidation_is_heard(ask_twice: AskTwice) -> None:
    """A driver that enabled ATS must invalidate the device-TLB: vhost keeps what it has else."""
    came = ask_twice(VSOCK_TALK, Forget.UNIT, ats=True)

    check_kept(came)
    assert came.count(INVALIDATE, "type iotlb") and not came.count(INVALIDATE, "type device")


@pytest.mark.parametrize("ats", [False, True], ids=["plain", "ats"])
@pytest.mark.negative_control("VTD-58")
def test_vhost_that_was_told_nothing_is_noticed(ask_twice: AskTwice, ats: bool) -> None:
    """Without an invalidation vhost writes to the page that was taken back."""
    came = ask_twice(VSOCK_TALK, Forget.NOTHING, ats=ats)

    check_kept(came)
    with must_fail():
        check_forgot(came)


@pytest.mark.negative_control("VTD-54")
def test_without_ats_the_unit_is_heard(ask_twice: AskTwice) -> None:
    """A driver that left ATS alone is heard with the unit's invalidation alone."""
    came = ask_twice(VSOCK_TALK, Forget.UNIT)

    with must_fail():
        check_kept(came)

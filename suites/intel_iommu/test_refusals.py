"""What QEMU must refuse, with its exact words, and that it refuses nothing beside it."""

from __future__ import annotations

import pytest

from harness.host.accelerator import Accel
from harness.host.host import Host
from harness.lab.vtd import properties_of
from harness.machine.outcome import Outcome
from harness.model.vtd.refusals import REFUSALS, RefusalCase, counterpart
from harness.testing import must_fail
from suites.intel_iommu.conftest import Try, skip_lacking


def check_outcome(outcome: Outcome, words: str | None) -> None:
    """QEMU refuses in an orderly way and with *words*; None: it accepts."""
    assert outcome.accepted == (words is None), f"expected {words or 'no refusal'!r}: {outcome}"
    assert words is None or (outcome.orderly and words in outcome.said), (
        f"expected exit status 1 and {words!r}; QEMU said: {outcome.said}"
    )


@pytest.fixture
def words(host: Host, case: RefusalCase) -> str | None:
    """What this QEMU must say to *case*; None: nothing. Skips where it cannot be tried."""
    properties = properties_of(host, case.driver)
    skip_lacking(host, case.lacking(properties))
    kvm = host.accelerator.accel is Accel.KVM
    return case.expected(host.qemu.version, properties, kvm=kvm)


CASES = [pytest.param(c, id=c.name, marks=pytest.mark.rule(c.rule)) for c in REFUSALS]
CONTROLS = [
    pytest.param(c, id=c.name, marks=pytest.mark.negative_control(c.rule)) for c in REFUSALS
]


@pytest.mark.parametrize("case", CASES)
def test_refused_with_these_words(try_case: Try, case: RefusalCase, words: str | None) -> None:
    """A set-up of IOMMUs that cannot work is refused with exit status 1 and the reason."""
    said = try_case(case)

    check_outcome(said, words)


@pytest.mark.parametrize("case", CONTROLS)
def test_the_other_way_is_noticed(try_case: Try, case: RefusalCase, words: str | None) -> None:
    """The check of a refusal fails where QEMU accepts, and that of an acceptance where not."""
    other = try_case(counterpart(case, words))

    with must_fail():
        check_outcome(other, words)

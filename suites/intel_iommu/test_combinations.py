"""All options of intel-iommu at once: sets in which every two values come together.

``TRAPLINE_COMBINATIONS=all`` takes every set there is (days), a number t lets every t values
come together. A build that lacks an option is not told it.
"""

from __future__ import annotations

import os

import pytest

from harness.host.accelerator import Accel
from harness.host.host import Host
from harness.lab.vtd import Observed, accelerator_for, properties_of
from harness.machine.outcome import Outcome
from harness.machine.vtd import vtd_spec
from harness.model.combinations import VARIABLE, Strength
from harness.model.vtd.combined import (
    IRQCHIP,
    OPTIONS,
    Row,
    any_sets,
    config_of,
    expected_words,
    good_sets,
    told,
)
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.expected import Irqchip
from harness.suite_needs import needs_kvm
from harness.testing import must_fail
from suites.intel_iommu.conftest import Observe, OutcomeOf
from suites.intel_iommu.test_registers import registers
from suites.intel_iommu.test_views import check_interrupt_window, check_untranslated

pytestmark = pytest.mark.full

STRENGTH = Strength.parse(os.environ.get(VARIABLE, ""))
RULES = ("VTD-02", "VTD-05", "VTD-08", "VTD-09", "VTD-11", "VTD-12", "VTD-13", "VTD-14")


def said(row: Row) -> str:
    """Return what is said of *row*, for the id of a test."""
    return config_of(row).label


@pytest.fixture
def row(request: pytest.FixtureRequest, host: Host) -> Row:
    """An option set as this build can be told it; skips where the host cannot run it."""
    wanted: Row = request.param
    irqchip = wanted[IRQCHIP]
    assert isinstance(irqchip, Irqchip)
    if accelerator_for(host, irqchip) is None:
        needs_kvm(host, f"kernel-irqchip={irqchip.value}")
    return told(wanted, properties_of(host))


@pytest.fixture
def words(row: Row, host: Host) -> frozenset[str]:
    """What this QEMU may say against the set; empty: it accepts."""
    kvm = host.accelerator.accel is Accel.KVM
    return expected_words(row, host.qemu.version, properties_of(host), kvm=kvm)


def try_set(outcome: OutcomeOf, host: Host, config: VtdConfig) -> Outcome:
    """Start a machine with *config*, which may be refused."""
    accel = accelerator_for(host, config.irqchip) or "tcg"
    return outcome(vtd_spec(config, accel=accel, properties=properties_of(host)))


def check_one_of(came: Outcome, words: frozenset[str]) -> None:
    """QEMU refuses in an orderly way with one of *words*; if there are none it accepts."""
    assert came.accepted == (not words), f"expected {sorted(words) or 'no refusal'}: {came}"
    assert not words or came.orderly, came
    assert not words or any(one in came.said for one in words), came


@pytest.mark.parametrize("row", any_sets(STRENGTH), ids=said, indirect=True)
@pytest.mark.rule(*RULES)
def test_sets_are_refused_for_a_reason(
    host: Host, outcome: OutcomeOf, row: Row, words: frozenset[str]
) -> None:
    """A set of options is refused if two of them do not go together, and only then."""
    check_one_of(try_set(outcome, host, config_of(row)), words)


PLAIN: Row = dict.fromkeys(OPTIONS) | {IRQCHIP: Irqchip.TCG}
WRONG: Row = {**PLAIN, "aw-bits": 40}


@pytest.mark.negative_control(*RULES)
@pytest.mark.parametrize(("row", "other"), [(PLAIN, WRONG), (WRONG, PLAIN)],
                         ids=["accepted", "refused"], indirect=["row"])  # fmt: skip
def test_another_end_is_noticed(
    host: Host, outcome: OutcomeOf, words: frozenset[str], row: Row, other: Row
) -> None:
    """A set that ends the other way fails the check."""
    came = try_set(outcome, host, config_of(other))

    with must_fail():
        check_one_of(came, words)


def check_as_told(observed: Observed, config: VtdConfig, host: Host) -> None:
    """CAP, ECAP and the views are what *config* implies."""
    seen = registers(observed)
    cap, ecap = config.cap(host.qemu.version), config.ecap(properties_of(host))
    assert cap.matches(seen.cap), cap.explain(seen.cap)
    assert ecap.matches(seen.ecap), ecap.explain(seen.ecap)
    check_untranslated(observed.memory_map)
    check_interrupt_window(observed.memory_map)


SHOWN = ("VTD-30", "VTD-31", "VTD-32", "VTD-33", "VTD-34", "VTD-39", "VTD-41")


@pytest.mark.parametrize("row", good_sets(STRENGTH), ids=said, indirect=True)
@pytest.mark.rule(*SHOWN)
def test_sets_show_what_they_are(host: Host, observe: Observe, row: Row) -> None:
    """The registers show every option of an accepted set at once, and the views are there."""
    config = config_of(row)

    check_as_told(observe(config), config, host)


@pytest.mark.negative_control(*SHOWN)
@pytest.mark.parametrize("row", [PLAIN], ids=said, indirect=True)
@pytest.mark.parametrize(
    "option", [{"caching_mode": True}, {"device_iotlb": True}, {"aw_bits": 39}], ids=str
)
def test_another_set_is_noticed(
    host: Host, observe: Observe, row: Row, option: dict[str, int | bool]
) -> None:
    """A machine that is set up otherwise in one option fails the check."""
    config = config_of(row)

    with must_fail():
        check_as_told(observe(config), config.having(**option), host)

"""Random operations on a real kernel, and what the model of it says must come of each.

``TRAPLINE_AP_SEQUENCES`` says how many sequences; ``TRAPLINE_AP_SEED`` where they begin.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from harness.ap.agreement import Agreement, Disagreement
from harness.ap.agreement_host import BenchHost
from harness.ap.workbench import Workbench
from harness.testing import must_fail

SEQUENCES = int(os.environ.get("TRAPLINE_AP_SEQUENCES", "25"))
SEED = int(os.environ.get("TRAPLINE_AP_SEED", "1"))


def check_agreement(agreement: Agreement, seeds: range) -> None:
    """Model and kernel say the same to every operation and in every attribute."""
    found: Disagreement | None = None
    for seed in seeds:
        found = found or agreement.run(seed)
    assert found is None, f"{agreement.tally}; then {found}"


@pytest.mark.timeout(24 * 3600)
@pytest.mark.rule("AP-02", "AP-12", "AP-13")
def test_model_and_kernel_agree(ap: Workbench) -> None:
    """Errnos and attributes after random operations are those of the model."""
    host = BenchHost(ap)
    agreement = Agreement(host, host.start())
    check_agreement(agreement, range(SEED, SEED + SEQUENCES))


@pytest.mark.negative_control("AP-02", "AP-12", "AP-13")
def test_a_model_that_is_wrong_is_noticed(ap: Workbench) -> None:
    """A model that believes domain 0x99 to be free is found out."""
    host = BenchHost(ap)
    state = host.start()
    agreement = Agreement(host, replace(state, aqmask=state.aqmask.without_bit(0x99)))

    with must_fail():
        check_agreement(agreement, range(1, 4))

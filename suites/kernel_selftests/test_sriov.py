"""``vfio_pci_sriov_uapi_test``: a virtual function is for who knows the token of its parent."""

from collections.abc import Iterator, Sequence

import pytest

from harness.guest.rate_limit import mark_with_room
from harness.host.host import Host
from harness.model.pci import PciFunction
from harness.parse.ktap import KtapReport
from harness.suite_fixtures import Free
from harness.testing import must_fail
from suites.kernel_selftests.conftest import TYPE1, Program, check_report

pytestmark = pytest.mark.full

PROGRAM = "vfio/vfio_pci_sriov_uapi_test"
TOKENS = ("same_uuid", "diff_uuid", "null_uuid")
"""What the one who wants the virtual function shows: the token, another, none."""
REFUSALS = ("VF token required to access device", "Incorrect VF token provided for device")


@pytest.fixture
def igb(host: Host, free: Free) -> Iterator[PciFunction]:
    """The igb, in the hands of a vfio-pci that makes virtual functions."""
    function = free("igb")
    with host.parameter("vfio_pci", "enable_sriov", "Y"):
        yield function


def mark_for_refusals(host: Host) -> int:
    """Return the length of the log when the kernel would speak of one more of either."""
    return mark_with_room(host, 1, times_refused, what="one more refusal for want of a token")


def times_refused(lines: Sequence[str]) -> int:
    """Return how often the refusal that was said most was said."""
    return max(sum(words in line for line in lines) for words in REFUSALS)


def check_tokens(report: KtapReport, log: str, subtests: pytest.Subtests | None = None) -> None:
    """Nothing failed, and the kernel refused both who had no token and who had another."""
    check_report(report, subtests)
    missing = [words for words in REFUSALS if words not in log]
    assert not missing, f"the kernel did not say {missing}, but:\n{log}"


@pytest.mark.rule("LIF-28")
def test_a_virtual_function_is_for_who_knows_the_token(
    host: Host, program: Program, igb: PciFunction, mode: str, subtests: pytest.Subtests
) -> None:
    """A virtual function is opened with the token of its physical one, and not without."""
    test, mark = program(PROGRAM), mark_for_refusals(host)

    report = test.run(igb.bdf, variants=[f"{mode}_{token}" for token in TOKENS])

    check_tokens(report, host.kernel_log_since(mark), subtests)


@pytest.mark.negative_control("LIF-28")
@pytest.mark.parametrize("mode", [TYPE1], indirect=True)
def test_a_token_that_nobody_asked_for_is_noticed(
    host: Host, program: Program, igb: PciFunction, mode: str
) -> None:
    """Where everybody shows one, nobody is told that one is required."""
    test, mark = program(PROGRAM), mark_for_refusals(host)

    report = test.run(igb.bdf, variants=[f"{mode}_same_uuid"])

    check_report(report)
    with must_fail():
        check_tokens(report, host.kernel_log_since(mark))

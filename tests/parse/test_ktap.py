"""Results of the kernel's own tests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ParseError
from harness.parse.ktap import KtapReport, KtapResult, Outcome, parse_ktap, render_ktap

# Of vfio_dma_mapping_test on a host without huge pages.
RUN = """\
Using device 0000:03:00.0
TAP version 13
1..4
# Starting 4 tests from 4 test cases.
#  RUN           vfio_dma_mapping_test.vfio_type1_iommu_anonymous.dma_map_unmap ...
Mapped HVA 0x7f0000000000 (size 0x1000) at IOVA 0x0
#            OK  vfio_dma_mapping_test.vfio_type1_iommu_anonymous.dma_map_unmap
ok 1 vfio_dma_mapping_test.vfio_type1_iommu_anonymous.dma_map_unmap
#  RUN           vfio_dma_mapping_test.vfio_type1_iommu_anonymous_hugetlb_2mb.dma_map_unmap ...
#      SKIP      mmap() failed: Cannot allocate memory (12)

#            OK  vfio_dma_mapping_test.vfio_type1_iommu_anonymous_hugetlb_2mb.dma_map_unmap
ok 2 vfio_dma_mapping_test.hugetlb_2mb.dma_map_unmap # SKIP mmap() failed: no memory (12)
# vfio_dma_mapping_test.c:181:dma_map_unmap:Expected 0 (0) != mapping.pte (0)
# dma_map_unmap: Test terminated by assertion
not ok 3 vfio_dma_mapping_test.iommufd_anonymous.dma_map_unmap
ok 4 vfio_dma_map_limit_test.iommufd.overflow # XFAIL not yet
# FAILED: 3 / 4 tests passed.
# Totals: pass:1 fail:1 xfail:1 xpass:0 skip:1 error:0
"""


def test_every_outcome_is_read() -> None:
    report = parse_ktap(RUN)

    assert report.planned == 4
    assert [one.outcome for one in report.results] == [
        Outcome.PASS, Outcome.SKIP, Outcome.FAIL, Outcome.XFAIL,
    ]  # fmt: skip
    assert report.results[1].reason == "mmap() failed: no memory (12)"
    assert report.results[0].name.endswith("anonymous.dma_map_unmap")


def test_what_a_test_printed_belongs_to_its_result() -> None:
    (failed,) = parse_ktap(RUN).of(Outcome.FAIL)

    assert failed.said[-1] == "# dma_map_unmap: Test terminated by assertion"


def test_a_failure_is_told_with_its_last_words() -> None:
    (problem,) = parse_ktap(RUN).problems()

    assert "iommufd_anonymous.dma_map_unmap: fail" in problem
    assert "Expected 0 (0) != mapping.pte (0)" in problem


def test_skipped_tests_are_no_problem() -> None:
    assert parse_ktap("TAP version 13\n1..1\nok 1 a # SKIP no device\n").problems() == []


def test_results_that_never_came_are_a_problem() -> None:
    report = parse_ktap("TAP version 13\n1..3\nok 1 a\n")

    assert report.missing == 2
    assert report.problems() == ["2 of 3 tests have no result"]


def test_a_program_without_any_test_has_not_passed() -> None:
    assert parse_ktap("TAP version 13\n1..0\n").problems() == ["no test has a result"]


def test_a_program_that_gives_up_says_why() -> None:
    report = parse_ktap("KTAP version 1\n1..2\nok 1 - a\nBail out! no memory\nok 2 b\n")

    assert report.results[0].name == "a"
    assert report.bail == "no memory"
    assert "it gave up: no memory" in report.problems()


def test_nested_results_are_what_a_test_said() -> None:
    report = parse_ktap("KTAP version 1\n1..1\n    ok 1 inner\n    not ok 2 inner\nok 1 outer\n")

    assert [one.name for one in report.results] == ["outer"]
    assert report.results[0].said == ("    ok 1 inner", "    not ok 2 inner")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("No driver found for device 0000:01:00.0\n", "no results"),
        ("TAP version 13\n1..2\nok 1 a\nok 3 c\n", "result 3 where result 2"),
        ("TAP version 13\n1..2\n1..2\n", "a second plan"),
    ],
)
def test_what_is_no_report_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ParseError, match=complaint):
        parse_ktap(text)


def test_a_test_that_took_too_long_is_told_from_one_that_failed() -> None:
    late = RUN.replace("terminated by assertion", "terminated by timeout")

    assert [one.number for one in parse_ktap(late).timed_out] == [3]
    assert not parse_ktap(RUN).timed_out


NAMES = st.from_regex(r"[a-z_]{1,12}(\.[a-z0-9_]{1,12}){0,2}", fullmatch=True)
REASONS = st.from_regex(r"([a-zA-Z][a-zA-Z0-9() ]{0,20}[a-z0-9)])?", fullmatch=True)
SAID = st.lists(st.from_regex(r"# [a-zA-Z .:]{0,30}", fullmatch=True), max_size=3).map(tuple)


@st.composite
def reports(draw: st.DrawFn) -> KtapReport:
    outcomes = draw(st.lists(st.sampled_from(Outcome), max_size=6))
    results = tuple(
        KtapResult(
            number, draw(NAMES), outcome,
            draw(REASONS) if outcome in (Outcome.SKIP, Outcome.XFAIL) else "", draw(SAID),
        )
        for number, outcome in enumerate(outcomes, 1)
    )  # fmt: skip
    return KtapReport(len(results), results)


@given(reports())
def test_what_is_printed_is_read_again(report: KtapReport) -> None:
    assert parse_ktap(render_ktap(report.results)) == report


@given(st.text(alphabet="TAP version13\nok# SKIP.not", max_size=80))
def test_no_text_confuses_the_parser(text: str) -> None:
    try:
        report = parse_ktap(f"TAP version 13\n{text}")
    except ParseError:
        return
    assert [one.number for one in report.results] == list(range(1, len(report.results) + 1))

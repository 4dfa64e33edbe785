"""Spans from steps and from the file of a run; the picture and the trace made of them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench.chrome_trace import chrome_trace
from harness.bench.picture import LABELS, ROWS, WIDTH, picture, tick_distance
from harness.bench.pictures import write_pictures
from harness.bench.timeline import (
    Span,
    condensed,
    durations_of_tests,
    from_records,
    of_test,
    read_lines,
    uncovered,
)
from harness.errors import ParseError
from harness.step import recorded, step

SVG = "{http://www.w3.org/2000/svg}"

spans = st.lists(
    st.builds(
        Span,
        text=st.text(max_size=80),
        began=st.floats(1e9, 2e9),
        seconds=st.floats(0, 1e4),
        depth=st.integers(0, 6),
        thread=st.sampled_from(["MainThread", "console"]),
        worker=st.sampled_from(["main", "gw0"]),
        failed=st.sampled_from(["", "LaunchFailed"]),
    ),
    max_size=80,
)
RUN = [
    Span("set up test_a", 0, 10, test="x.py::test_a"),
    Span("boot", 1, 8),
    Span("log in", 7, 2, depth=1),
    Span("call test_a", 10, 1, test="x.py::test_a"),
    Span("boot", 1, 9, worker="gw1"),
    Span("call test_b", 11, 3, test="x.py::test_b"),
    Span("ask", 12, 1),
]


@given(spans, st.text())
def test_a_picture_is_well_formed_and_stays_inside_its_frame(made: list[Span], title: str) -> None:
    root = ET.fromstring(picture(made, title=title))

    assert root.tag == f"{SVG}svg"
    height = float(root.attrib["height"])
    for rect in root.iter(f"{SVG}rect"):
        x, y = float(rect.get("x", 0)), float(rect.get("y", 0))
        assert 0 <= x <= x + float(rect.attrib["width"]) <= WIDTH
        assert 0 <= y <= y + float(rect.attrib["height"]) <= height


def test_bars_are_where_their_time_was_and_as_long() -> None:
    root = ET.fromstring(picture([Span("all", 0, 10), Span("half", 5, 5, depth=1)], title="t"))

    whole, half = (
        (float(rect.attrib["x"]), float(rect.attrib["width"]))
        for rect in root.iter(f"{SVG}rect")
        if rect.get("class") == "step"
    )
    assert whole[0] == LABELS
    assert half == pytest.approx((whole[0] + whole[1] / 2, whole[1] / 2), abs=0.1)


def test_a_picture_is_readable_in_light_and_dark() -> None:
    text = picture([Span("all", 0, 1)], title="t")

    assert "prefers-color-scheme: dark" in text
    assert 'class="paper"' in text


def test_the_shortest_steps_are_left_out_and_counted() -> None:
    many = [Span(f"step {n}", n, 1 if n % 2 else 0.5) for n in range(2 * ROWS)]

    text = picture(many, title="t")

    assert "step 1<" in text
    assert "step 2<" not in text
    assert f"{ROWS} steps of 500 ms or less not shown" in text
    kept, left_out = condensed(many, rows=3)
    assert [span.text for span in kept] == ["step 1", "step 3", "step 5"]
    assert len(kept) + len(left_out) == len(many)


@given(st.floats(1e-6, 1e6))
def test_ticks_are_round_and_not_too_many(total: float) -> None:
    distance = tick_distance(total)

    assert f"{distance:e}"[0] in "125"
    assert 1 <= total / distance <= 8 * (1 + 1e-9)


@given(spans)
def test_the_trace_has_an_event_a_span_in_its_own_process_and_thread(made: list[Span]) -> None:
    trace = json.loads(json.dumps(chrome_trace(made)))

    events = trace["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    names = {(e["name"], e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M"}
    assert [event["name"] for event in complete] == [span.text for span in made]
    for event, span in zip(complete, made, strict=True):
        assert event["ts"] >= 0
        assert event["dur"] == pytest.approx(span.seconds * 1e6, abs=0.01)
        assert names["process_name", event["pid"], 0] == span.worker
        assert names["thread_name", event["pid"], event["tid"]] == span.thread


def test_recorded_steps_become_spans_outer_before_inner() -> None:
    with recorded() as ended, step("outer"), step("inner"):
        pass

    assert [(span.text, span.depth) for span in from_records(ended)] == [
        ("outer", 0),
        ("inner", 1),
    ]


def test_a_test_has_its_phases_and_what_its_worker_did_in_them() -> None:
    assert [(span.text, span.depth) for span in of_test(RUN, "x.py::test_a")] == [
        ("set up test_a", 0),
        ("boot", 1),
        ("log in", 2),
        ("call test_a", 0),
    ]
    assert of_test(RUN, "x.py::test_c") == []
    assert durations_of_tests(RUN) == {"x.py::test_a": 11, "x.py::test_b": 3}


def test_what_no_step_covers_is_counted_once() -> None:
    assert uncovered([Span("a", 0, 2), Span("b", 1, 2), Span("c", 5, 1)]) == 2
    assert uncovered([]) == 0


def test_the_file_of_a_run_is_read_back() -> None:
    text = "".join(json.dumps(asdict(span)) + "\n" for span in RUN)

    assert sorted(read_lines(text, where="f"), key=str) == sorted(RUN, key=str)


def test_the_line_that_a_killed_run_did_not_finish_is_left_out() -> None:
    line = json.dumps(asdict(RUN[0]))

    assert read_lines(f'{line}\n{{"text": "bo', where="f") == [RUN[0]]


@pytest.mark.parametrize("line", ["{}", "[]", "x", '{"text": "a", "color": 1}'])
def test_a_line_that_is_no_step_is_told_with_its_place(line: str) -> None:
    with pytest.raises(ParseError, match="f:1"):
        read_lines(f"{line}\n", where="f")


def test_both_files_are_written(tmp_path: Path) -> None:
    svg, trace = write_pictures(RUN, tmp_path, "timeline", title="all of it")

    assert ET.parse(svg).getroot().get("aria-label") == "all of it"
    assert len(json.loads(trace.read_text())["traceEvents"]) > len(RUN)

"""``steps.jsonl``: what runs and workers leave, whatever becomes of the tests."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from harness.bench.timeline import read_lines
from harness.commands.timeline import choose, read_steps, timeline
from harness.errors import ConfigError
from harness.report.steps_log import FILE_NAME, StepsLog
from harness.step import step

SUITE = """
import pytest
from harness.step import step
{log}
@pytest.fixture
def host():
    with step("boot"):
        pass

def test_good(host):
    with step("look"):
        pass

def test_bad(host):
    with step("look"):
        raise RuntimeError("no")
"""
CONFTEST = """
from pathlib import Path
from harness.report.steps_log import StepsLog

def pytest_configure(config):
    config.pluginmanager.register(StepsLog(Path({place!r}), worker="main"), "steps")
"""


@pytest.fixture
def run(pytester: pytest.Pytester, tmp_path: Path) -> Path:
    """A run with a test that passes and one that fails."""
    pytester.makeconftest(CONFTEST.format(place=str(tmp_path)))
    pytester.makepyfile(test_x=SUITE.format(log=""))
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1, failed=1)
    return tmp_path


def test_a_run_leaves_phases_and_steps(run: Path) -> None:
    spans = read_steps(run)

    assert [(span.text, span.failed) for span in spans if span.depth == 0] == [
        ("set up test_good", ""), ("boot", ""), ("call test_good", ""), ("look", ""),
        ("tear down test_good", ""),
        ("set up test_bad", ""), ("boot", ""), ("call test_bad", "RuntimeError"),
        ("look", "RuntimeError"), ("tear down test_bad", ""),
    ]  # fmt: skip
    assert {span.test for span in spans if span.test} == {
        "test_x.py::test_good",
        "test_x.py::test_bad",
    }


def test_the_timeline_of_a_run_is_that_of_the_test_asked_for(run: Path) -> None:
    files = timeline(run, "bad", results=run.parent)

    assert [path.name.partition("-")[0] for path in files] == [
        "timeline", "timeline", "timeline.trace.json",
    ]  # fmt: skip
    assert "set up test_bad" in files[0].read_text()
    assert "test_good" not in files[0].read_text()


def test_a_test_or_a_run_that_is_not_there_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no test of the run is called 'ugly'"):
        choose(read_steps(run), "ugly")
    with pytest.raises(ConfigError, match="no steps in"):
        read_steps(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="there is no run"):
        timeline(None, "", results=tmp_path / "nowhere")


def test_workers_and_threads_share_the_file_a_whole_line_at_a_time(tmp_path: Path) -> None:
    logs = [StepsLog(tmp_path, worker=f"gw{n}") for n in range(2)]

    def work() -> None:
        for n in range(50):
            with step("step %d %s", n, "long " * 40):
                pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.pytest_unconfigure()
        log.pytest_unconfigure()

    spans = read_lines((tmp_path / FILE_NAME).read_text(), where="f")
    assert len(spans) == 3 * 50 * 2
    assert {span.worker for span in spans} == {"gw0", "gw1"}


def test_nothing_is_written_after_the_end(tmp_path: Path) -> None:
    log = StepsLog(tmp_path, worker="main")
    log.pytest_unconfigure()
    with step("too late"):
        pass

    assert [json.loads(line) for line in (tmp_path / FILE_NAME).open()] == []

"""Made-up runs: how pytest is started, and what one test costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.bench import overhead, scale
from harness.bench.pytest_runs import MadeRun, arguments, ended
from harness.bench.suite import count_passed
from harness.errors import MachineError


def test_one_test_costs_what_lies_between_the_second_and_the_last() -> None:
    assert MadeRun(30, (0, 20, 20.5, 21, 21.5)).each == 0.5


def test_too_few_tests_tell_nothing() -> None:
    with pytest.raises(ValueError, match="three tests"):
        _ = MadeRun(1, (0, 1)).each


def test_a_made_run_has_the_settings_and_its_own_results() -> None:
    words = arguments(Path("/s"), Path("/r"), ["--kernel=debian:x"], 2, False)

    assert words[-1] == "/s"
    assert {"--results=/r", "--kernel=debian:x", "--rootdir=/s"} <= set(words)
    assert words[words.index("-n") + 1] == "2"


def test_a_bare_run_is_pytest_alone() -> None:
    words = arguments(Path("/s"), Path("/r"), ["--kernel=debian:x"], None, True)

    assert words[words.index("no:harness.plugin") - 1] == "-p"
    assert "-n" not in words
    assert not any(word.startswith(("--results", "--kernel")) for word in words)


@pytest.mark.parametrize(
    "text",
    [scale.TESTS.format(count=4), overhead.EMPTY_TESTS.format(fixtures=", host, nested")],
)
def test_made_up_tests_are_python(text: str) -> None:
    compile(text, "test_made.py", "exec")


def test_what_qemu_must_refuse_names_no_device_of_the_host() -> None:
    spec = overhead.impossible("tcg")

    (device,) = (one for one in spec.devices if one.driver == "vfio-pci")
    assert device.options["host"] == "0000:7f:1f.7"
    assert spec.paused


def test_a_program_is_run_to_its_end(tmp_path: Path) -> None:
    assert ended(["/bin/sh", "-c", "pwd; exit 3"], tmp_path / "log", cwd=tmp_path) == (
        3,
        f"{tmp_path}\n",
    )


def test_the_tests_that_passed_are_read_from_the_facts_of_a_run() -> None:
    assert count_passed('{"counts": {"pass": 441, "skip": 2}}') == 441
    with pytest.raises(MachineError, match="does not say"):
        count_passed("{}")

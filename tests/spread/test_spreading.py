"""Real inner sessions with workers: who ran what, and how often shared things were made."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

from harness.model.rule import Verdict
from harness.report.results import Result, read_results
from harness.spread.memory import NAME
from harness.spread.workers import Workers

PROVIDER = """
import os, pathlib, pytest
from harness.spread.shared import Shared
from harness.wait import wait_until

THINGS = ("guest", "bare")
HERE = pathlib.Path(__file__).parent

def pytest_trapline_shared(item):
    lane = item.config.getini("markers") and os.environ.get("LANE", "")
    names = [name for name in THINGS if name in item.fixturenames]
    return Shared(names[0], 5, lane=lane) if names else None

def pytest_collection_modifyitems(items):
    if os.environ.get("DIFFER") and os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        items.pop()

def made(name):
    with open(HERE / "made.txt", "a") as file:
        file.write(f"{name} {os.environ.get('PYTEST_XDIST_WORKER', '')}\\n")

@pytest.fixture(scope="session")
def guest():
    made("guest")

@pytest.fixture(scope="session")
def bare():
    made("bare")

@pytest.fixture(scope="session")
def host(worker_id):
    if worker_id == "gw1":
        raise OSError("no host here")
    wait_until("the other failed", (HERE / "thrice").exists, timeout=60)

tried = []

def pytest_runtest_teardown(item):
    tried.append(item)
    if "host" in item.fixturenames and len(tried) == 3:
        (HERE / "thrice").touch()

@pytest.fixture
def until():
    def wait(name):
        wait_until(name, (HERE / name).exists, timeout=60)
    return wait
"""

EACH = "import pytest\n@pytest.mark.parametrize('n', range({}))\ndef test_{}(n{}): pass\n"


@pytest.fixture(autouse=True)
def inside(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("TRAPLINE_", "PYTEST_"))]:
        if name != "PYTEST_CURRENT_TEST":
            monkeypatch.delenv(name)
    pytester.makeconftest(PROVIDER)


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("--results=res", "-p", "no:cacheprovider", *arguments)


def results(pytester: pytest.Pytester) -> dict[str, Result]:
    found = read_results(pytester.path / "res/latest/report.jsonl")
    return {result.nodeid.partition("::")[2]: result for result in found}


def workers_by_name(pytester: pytest.Pytester) -> dict[str, set[str]]:
    """The workers that ran each function, whatever its parameters."""
    found = defaultdict(set)
    for name, result in results(pytester).items():
        found[name.partition("[")[0]].add(result.worker)
    return found


def remember(pytester: pytest.Pytester, **seconds: float) -> None:
    place = pytester.path / "res"
    place.mkdir(exist_ok=True)
    tests = {f"test_a.py::{name}": value for name, value in seconds.items()}
    (place / NAME).write_text(json.dumps({"tests": tests, "shared": {}}))


def test_tests_that_share_a_thing_stay_together_and_make_it_once(
    pytester: pytest.Pytester,
) -> None:
    mixed = "\n".join(
        f"def test_guest_{n}(guest): pass\ndef test_bare_{n}(bare): pass" for n in range(5)
    )
    pytester.makepyfile(test_a=mixed, test_b=mixed)

    ended = run(pytester, "-n2")

    ended.assert_outcomes(passed=20)
    made = sorted((pytester.path / "made.txt").read_text().splitlines())
    assert [line.split()[0] for line in made] == ["bare", "guest"]
    assert len({line.split()[1] for line in made}) == 2


def test_the_longest_remembered_test_begins_first(pytester: pytest.Pytester) -> None:
    names = [f"test_{n}" for n in range(8)]
    pytester.makepyfile(test_a="\n".join(f"def {name}(): pass" for name in names))
    remember(pytester, **(dict.fromkeys(names, 0.1) | {"test_6": 50, "test_7": 40}))

    run(pytester, "-n2")

    begun: dict[str, str] = {}
    for line in (pytester.path / "res/latest/report.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry.get("when") == "setup":
            begun.setdefault(entry["worker_id"], entry["nodeid"].partition("::")[2])
    assert set(begun.values()) >= {"test_6"}
    assert all(name in ("test_6", "test_7") for name in begun.values())


def test_a_stuck_worker_holds_nobody_up(pytester: pytest.Pytester) -> None:
    body = "def test_stuck(until): until('free')\n"
    body += "".join(f"def test_{n}(): pass\n" for n in range(20))
    body += "def test_last():\n    import pathlib\n"
    body += f"    pathlib.Path({os.fspath(pytester.path)!r}, 'free').touch()\n"
    pytester.makepyfile(test_a=body)

    ended = run(pytester, "-n2")

    ended.assert_outcomes(passed=22)
    found = results(pytester)
    assert found["test_stuck"].worker != found["test_last"].worker


def test_a_large_group_is_shared_out_when_a_worker_would_idle(pytester: pytest.Pytester) -> None:
    body = "def test_stuck(guest, until): until('free')\n"
    body += "".join(f"def test_{n}(guest): pass\n" for n in range(20))
    body += "def test_last(guest):\n    import pathlib\n"
    body += f"    pathlib.Path({os.fspath(pytester.path)!r}, 'free').touch()\n"
    pytester.makepyfile(test_a=body)

    ended = run(pytester, "-n2")

    ended.assert_outcomes(passed=22)
    assert len((pytester.path / "made.txt").read_text().splitlines()) == 2


def test_a_small_group_is_not_shared_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a=EACH.format(4, "guest", ", guest"))

    run(pytester, "-n2").assert_outcomes(passed=4)

    assert len(workers_by_name(pytester)["test_guest"]) == 1


def test_a_lane_stays_on_one_worker(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANE", "devices")
    pytester.makepyfile(
        test_a=EACH.format(20, "guest", ", guest"),
        test_b=EACH.format(20, "bare", ", bare"),
        test_c=EACH.format(5, "other", ""),
    )

    run(pytester, "-n3").assert_outcomes(passed=45)

    found = workers_by_name(pytester)
    assert len(found["test_guest"] | found["test_bare"]) == 1


CRASH = "import os\ndef test_crash(guest): os._exit(3)\n"


@pytest.mark.parametrize("more", [(), ("--max-worker-restart=0",)], ids=["replaced", "not"])
def test_a_crashed_worker_costs_its_test_only(
    pytester: pytest.Pytester, more: tuple[str, ...]
) -> None:
    body = CRASH + "".join(f"def test_{n}(guest): pass\n" for n in range(5))
    pytester.makepyfile(test_a=body, test_b=EACH.format(10, "loose", ""))

    ended = run(pytester, "-n2", *more)

    found = results(pytester)
    assert ended.ret != 0
    assert "crashed while running" in found.pop("test_crash").message
    assert {result.verdict for result in found.values()} == {Verdict.PASS}
    if not more:
        assert len(found) == 15


def test_it_ends_at_the_first_failure_when_asked_to(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a="def test_bad(): assert 0\n", test_b=EACH.format(200, "loose", ""))
    remember(pytester, test_bad=100)

    ended = run(pytester, "-n2", "-x")

    assert ended.ret == pytest.ExitCode.INTERRUPTED
    assert len(results(pytester)) < 100


def test_a_worker_with_a_broken_host_does_not_swallow_the_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a=EACH.format(40, "any", ", host"))

    run(pytester, "-n2")

    broken = [name for name, result in results(pytester).items() if result.worker == "gw1"]
    assert len(results(pytester)) == 40
    assert 3 <= len(broken) <= 5


def test_workers_that_collect_different_tests_run_none(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFER", "yes")
    pytester.makepyfile(test_a=EACH.format(3, "any", ""))

    ended = run(pytester, "-n2")

    assert ended.ret != 0
    ended.stdout.fnmatch_lines(["*the workers collected different tests*", "*[+-]*test_any?2?"])
    ended.stdout.no_fnmatch_line("*PASS*")


@pytest.mark.parametrize("spread", [("-n2",), ("-n0",), ("-p", "no:xdist")], ids=" ".join)
def test_a_run_remembers_what_tests_and_things_took(
    pytester: pytest.Pytester, spread: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_a="def test_x(): pass\ndef test_y(guest): pass\n")
    place = pytester.path / "res"

    run(pytester, *spread).assert_outcomes(passed=2)

    remembered = json.loads((place / NAME).read_text())
    assert set(remembered["tests"]) == {"test_a.py::test_x", "test_a.py::test_y"}
    assert not list(place.glob("latest/.*"))


def scheduler(ended: pytest.RunResult) -> str:
    return next(
        line.rpartition(" ")[2]
        for line in ended.stdout.lines
        if line.startswith("scheduling tests via")
    )


@pytest.mark.parametrize(
    ("arguments", "used"),
    [
        (("-n2",), "Scheduler"),
        (("-n2", "--dist=load"), "LoadScheduling"),
        (("-n2", "--dist", "worksteal"), "WorkStealingScheduling"),
        (("-d", "--tx=2*popen"), "LoadScheduling"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_who_tells_xdist_how_to_spread_is_heard(
    pytester: pytest.Pytester, arguments: tuple[str, ...], used: str
) -> None:
    pytester.makepyfile("def test_x(): pass\n")

    ended = run(pytester, "-v", *arguments)

    ended.assert_outcomes(passed=1)
    assert scheduler(ended) == used


def test_other_projects_are_spread_by_xdist(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_x(): pass\n")

    ended = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-v", "-n2")

    assert scheduler(ended) == "LoadScheduling"


@pytest.mark.parametrize(("count", "said"), [(2, "2"), (0, "none")])
def test_auto_asks_cores_and_memory(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, count: int, said: str
) -> None:
    monkeypatch.setattr(
        "harness.spread.workers.automatic",
        lambda host: Workers(count, f"{host}: seven GiB"),
    )
    pytester.makepyfile(EACH.format(4, "any", ""))

    ended = run(pytester, "-nauto", "--host=local")

    ended.assert_outcomes(passed=4)
    ended.stdout.fnmatch_lines([f"workers: {said} (local: seven GiB)"])
    assert (workers_by_name(pytester)["test_any"] == {""}) == (count == 0)


def test_xdists_own_variable_still_decides(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "1")
    pytester.makepyfile("def test_x(): pass\n")

    run(pytester, "-nauto").assert_outcomes(passed=1)

    assert workers_by_name(pytester) == {"test_x": {"gw0"}}
    assert Path(pytester.path / "res" / NAME).is_file()

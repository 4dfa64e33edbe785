"""Hosts that the test at hand does not need stand still."""

from __future__ import annotations

import textwrap

import pytest

pytest_plugins = ("pytester",)

CONFTEST = """
    import pytest
    import harness.suite_still as suite_still

    hosts = []

    class FakeHost:
        def __init__(self, name):
            self.name, self.machine, self.stands = name, self, False
            hosts.append(self)

        def stand_still(self):
            self.stands = True

        def go_on(self):
            self.stands = False

    suite_still.living = lambda: tuple(hosts)
    stillness = suite_still.Stillness()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(item):
        stillness.before(item)
        try:
            return (yield)
        finally:
            stillness.after(item)

    @pytest.fixture(scope="session")
    def parts():
        return ()

    @pytest.fixture(scope="session")
    def host(parts):
        return FakeHost("host")

    @pytest.fixture(scope="session")
    def zoo(host):
        return FakeHost("zoo")

    @pytest.fixture(scope="module")
    def keeper(parts):
        return []

    @pytest.fixture
    def kept(keeper):
        keeper[:] = keeper or [FakeHost("kept")]

    @pytest.fixture
    def awake():
        return lambda: [host.name for host in hosts if not host.stands]
"""
TESTS = """
    def test_host(host, awake):
        assert awake() == ["host"]

    def test_zoo(zoo, awake):
        assert awake() == ["zoo"]

    def test_kept(kept, awake):
        assert awake() == ["kept"]

    def test_zoo_again(zoo, awake):
        assert awake() == ["zoo"]

    def test_kept_again(kept, awake):
        assert awake() == ["kept"]

    def test_host_again(host, awake):
        assert awake() == ["host"]
"""


def test_only_what_came_with_the_fixtures_of_a_test_goes_on(pytester: pytest.Pytester) -> None:
    area = pytester.mkdir("area")
    (area / "conftest.py").write_text(textwrap.dedent(CONFTEST))
    (area / "test_it.py").write_text(textwrap.dedent(TESTS))

    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=6)

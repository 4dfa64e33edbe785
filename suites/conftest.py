"""What every suite shares: the vocabulary, and what is judged."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import pytest

from harness.settings import SUBJECT
from harness.spread.shared import Shared
from harness.suite_fixtures import (  # noqa: F401 - fixtures are used by their names
    WENT_WRONG,
    another_host,
    assigned,
    attach,
    attempt,
    device_names,
    firmware_only,
    free,
    host,
    launch,
    nested,
    never_read,
    parts,
    refusal,
    refused_command,
    resident,
    run_key,
    shared_evidence,
    subject_of,
    zoo,
)
from harness.suite_needs import (  # noqa: F401
    kvm,
    lab_parts,
    needs_subject,
    nested_host,
    skipping_what_the_host_lacks,
    virtual_host,
)
from harness.suite_order import in_good_order, shared_by
from harness.suite_repeat import repeat_what_the_lab_broke
from harness.suite_still import Stillness

STILLNESS = pytest.StashKey[Stillness]()


def pytest_trapline_subject(config: pytest.Config) -> Mapping[str, str]:
    """Say what is judged; images and builds that are missing are made first."""
    return subject_of(config)


def pytest_trapline_needs_subject(item: pytest.Item) -> bool:
    """Refuse the run at its start if a test would look for the host in vain."""
    return needs_subject(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let the hosts stand still that the test does not need."""
    stillness = item.config.stash.setdefault(STILLNESS, Stillness())
    stillness.before(item)
    try:
        return (yield)
    finally:
        stillness.after(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Let hosts go on before the fixtures of a module, a package, the run are taken down."""
    if nextitem is None or nextitem.path != item.path:
        item.config.stash[STILLNESS].wake()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Skip where the host lacks what a fixture wants."""
    item.stash[WENT_WRONG] = False
    with skipping_what_the_host_lacks():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Skip where the host lacks what the test wants; remember what went wrong."""
    try:
        with skipping_what_the_host_lacks():
            return (yield)
    except pytest.skip.Exception:
        raise
    except BaseException:
        item.stash[WENT_WRONG] = True
        raise


def pytest_trapline_shared(item: pytest.Item) -> Shared | None:
    """Say what a test shares, so that workers keep such tests together."""
    return shared_by(item)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the resident guest as long as somebody needs it; begin anew what the lab broke."""
    in_good_order(items)
    subject = config.stash.get(SUBJECT, {})
    if not config.getoption("usepdb"):  # pytest-rerunfailures refuses to have both
        repeat_what_the_lab_broke(items, subject)

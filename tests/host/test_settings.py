"""Files of procfs and sysfs that say something else for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import CommandFailed, DeviceBusy
from harness.guest.system import chosen
from harness.host.journal import AttributeChange, Journal
from harness.host.restore import restore_host

NUMBER = "/proc/sys/vm/nr_hugepages"


@pytest.fixture
def pages(fake: Any) -> Path:
    """Where the fake host says how many huge pages it has: 3."""
    path: Path = fake.root / NUMBER[1:]
    path.parent.mkdir(parents=True)
    path.write_text("3\n")
    return path


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("3\n", "3"),
        ("always within_size [advise] never\n", "advise"),
        ("\n", ""),
        ("[a b]", "[a b]"),
    ],
)
def test_what_a_file_says_is_the_one_word_in_brackets(text: str, word: str) -> None:
    assert chosen(text) == word


def test_a_setting_of_a_guest_is_put_back(fake: Any, pages: Path) -> None:
    with pytest.raises(ZeroDivisionError), fake.system.setting(NUMBER, "7"):
        assert pages.read_text() == "7"
        raise ZeroDivisionError

    assert pages.read_text() == "3"


def test_a_setting_that_is_gone_is_not_put_back(fake: Any, pages: Path) -> None:
    with fake.system.setting(NUMBER, "7"):
        pages.unlink()

    assert not pages.exists()


def test_a_setting_of_a_host_is_journalled_before_it_is_made(fake: Any, pages: Path) -> None:
    host = fake.opened()

    with host.setting(NUMBER, "7"):
        assert pages.read_text() == "7"
        (change,) = Journal.of_host(fake.url).pending()
        assert isinstance(change, AttributeChange)
        assert (change.path, change.text) == (NUMBER, "3")

    assert pages.read_text() == "3"
    assert Journal.of_host(fake.url).pending() == ()
    host.close()


def test_a_setting_within_a_setting_comes_back_step_by_step(fake: Any, pages: Path) -> None:
    host = fake.opened()

    with host.setting(NUMBER, "7"):
        with host.setting(NUMBER, "9"):
            assert pages.read_text() == "9"
        assert pages.read_text() == "7"

    assert pages.read_text() == "3"
    host.close()


def test_a_setting_of_a_run_that_was_killed_is_restored(fake: Any, pages: Path) -> None:
    killed = fake.opened()
    inside = killed.setting(NUMBER, "7")
    inside.__enter__()
    killed.locks.release()  # as when its process is killed

    (restored,) = restore_host(Journal.of_host(fake.url), connect=lambda url: fake.transport)

    assert restored.is_back
    assert pages.read_text() == "3"


def test_a_refused_setting_leaves_nothing_to_put_back(fake: Any, pages: Path) -> None:
    host = fake.opened()

    with pytest.raises(CommandFailed), host.setting("/proc/version", "mine"):
        pytest.fail("it is said to be made")

    assert Journal.of_host(fake.url).pending() == ()
    host.close()


def test_two_runs_do_not_change_the_same_file(fake: Any, pages: Path) -> None:
    one, two = fake.opened(), fake.opened(run="/results/two")
    with one.setting(NUMBER, "7"):
        with pytest.raises(DeviceBusy, match=NUMBER) as busy, two.setting(NUMBER, "9"):
            pytest.fail("both have it")
        assert "/results/one" in busy.value.seen

    one.close()
    two.close()
    assert pages.read_text() == "3"

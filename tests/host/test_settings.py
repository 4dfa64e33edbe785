"""Files of procfs and sysfs that say something else for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import CommandFailed, DeviceBusy
from harness.guest.system import chosen
from harness.host.journal import AttributeChange, Journal
from harness.host.locks import host_slug
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


def killed_while(fake: Any, path: Path, *texts: str) -> None:
    """Leave what a run leaves that is killed while the file says the last of *texts*."""
    journal = Journal.of_host(fake.url, boot="boot-1")
    for text in texts:
        journal.attribute(NUMBER, path.read_text().strip(), group=f"setting {host_slug(NUMBER)}")
        path.write_text(text)


def test_a_setting_of_a_killed_run_is_restored(fake: Any, pages: Path) -> None:
    killed_while(fake, pages, "7", "9")

    restored = restore_host(Journal.of_host(fake.url), connect=lambda url: fake.transport)

    assert all(one.is_back for one in restored)
    assert pages.read_text() == "3"


def test_a_host_that_is_opened_has_no_setting_of_a_killed_run(
    fake: Any, pages: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed_while(fake, pages, "7", "9")

    host = fake.opened()

    assert pages.read_text() == "3"
    assert Journal.of_host(fake.url).pending() == ()
    assert "put back what a run that was killed left" in caplog.text
    host.close()


def test_a_host_that_is_opened_has_the_settings_of_a_living_run(fake: Any, pages: Path) -> None:
    one = fake.opened()
    with one.setting(NUMBER, "7"):
        fake.opened(run="/results/two").close()

        assert pages.read_text() == "7"

    assert pages.read_text() == "3"
    one.close()


def test_what_a_run_left_that_was_killed_meanwhile_is_put_back(fake: Any, pages: Path) -> None:
    host = fake.opened()
    killed_while(fake, pages, "7", "9")

    with host.setting(NUMBER, "5"):
        assert pages.read_text() == "5"

    assert pages.read_text() == "3"
    assert Journal.of_host(fake.url).pending() == ()
    host.close()


def test_a_refused_setting_leaves_the_change_of_a_killed_run(
    fake: Any, pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = fake.opened()
    killed_while(fake, pages, "7")

    def refuse(path: str, text: str) -> None:
        raise CommandFailed("write", exit_status=16, stdout="", stderr="busy", where="host")

    with monkeypatch.context() as patched:
        patched.setattr(host, "write_text", refuse)
        with pytest.raises(CommandFailed), host.setting(NUMBER, "9"):
            pytest.fail("it is said to be made")
    host.close()

    assert pages.read_text() == "3"
    assert Journal.of_host(fake.url).pending() == ()


def test_a_refused_setting_leaves_nothing_to_put_back(fake: Any, pages: Path) -> None:
    host = fake.opened()

    with pytest.raises(CommandFailed), host.setting("/proc/version", "mine"):
        pytest.fail("it is said to be made")

    assert Journal.of_host(fake.url).pending() == ()
    host.close()


def test_two_runs_do_not_change_the_same_file_at_once(fake: Any, pages: Path) -> None:
    one, two = fake.opened(), fake.opened(run="/results/two")
    with one.setting(NUMBER, "7"):
        with pytest.raises(DeviceBusy, match=NUMBER) as busy, two.setting(NUMBER, "9"):
            pytest.fail("both have it")
        assert "/results/one" in busy.value.seen

    with two.setting(NUMBER, "9"):
        assert pages.read_text() == "9"

    one.close()
    two.close()
    assert pages.read_text() == "3"

"""What every transport does: the same commands here and over SSH."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import CommandFailed, Unreachable
from harness.guest.local import LocalTransport
from harness.guest.ssh import SshTransport
from harness.guest.transport import Transport, command_text
from harness.wait import wait_until

BIG = bytes(range(256)) * 20 * 1024  # 5 MiB


@pytest.fixture(params=["local", "ssh"])
def transport(request: pytest.FixtureRequest) -> Transport:
    if request.param == "local":
        return LocalTransport()
    over_ssh: SshTransport = request.getfixturevalue("ssh")
    return over_ssh


def test_command_says_what_it_said(transport: Transport) -> None:
    done = transport.run("echo out; echo err >&2; exit 3", check=False)

    assert (done.exit_status, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_words_are_quoted_and_text_is_not(transport: Transport) -> None:
    assert transport.run(["printf", "%s", "$HOME *"]).stdout == "$HOME *"
    assert transport.run("printf %s $((1 + 2))").stdout == "3"
    assert command_text(["a b", "c"]) == "'a b' c"


def test_exit_status_that_was_not_wanted_is_an_error(transport: Transport) -> None:
    with pytest.raises(CommandFailed, match="exited with 7") as failed:
        transport.run("echo why >&2; exit 7")

    assert failed.value.exit_status == 7
    assert failed.value.stderr == "why\n"


def test_command_ended_by_a_signal_has_a_negative_status(transport: Transport) -> None:
    done = transport.run("echo first; kill -9 $$", check=False)

    assert done.exit_status < 0
    assert done.stdout == "first\n"


def test_input_arrives_whole_and_ends(transport: Transport) -> None:
    assert transport.run("wc -c", stdin=b"12345").stdout.strip() == "5"
    assert transport.run("cat").stdout == ""


def test_megabytes_go_both_ways_at_once(transport: Transport) -> None:
    done = transport.run("cat", stdin=b"x" * len(BIG), timeout=60)

    assert len(done.stdout) == len(BIG)


def test_megabytes_of_input_for_a_command_that_ends_early_do_no_harm(
    transport: Transport,
) -> None:
    assert transport.run("head -c 3", stdin=BIG, timeout=60, check=False).exit_status == 0


def test_both_outputs_come_whole(transport: Transport) -> None:
    done = transport.run("yes o | head -c 1000000; yes e | head -c 1000000 >&2")

    assert (len(done.stdout), len(done.stderr)) == (1000000, 1000000)


def test_output_before_the_deadline_is_in_the_message(transport: Transport) -> None:
    with pytest.raises(Unreachable, match=r"did not end within 0\.5 s") as late:
        transport.run("echo so far; sleep 60", timeout=0.5)

    assert late.value.seen == "so far\n"


def test_files_are_written_and_read_back(transport: Transport, tmp_path: Path) -> None:
    path = str(tmp_path / "with blank")

    transport.write(path, BIG)

    assert transport.size(path) == len(BIG)
    assert transport.read(path) == BIG
    assert transport.read(path, offset=len(BIG) - 3) == BIG[-3:]
    transport.write(path, b"")
    assert transport.read(path) == b""


def test_file_that_is_not_there_is_empty(transport: Transport, tmp_path: Path) -> None:
    assert transport.read(str(tmp_path / "none")) == b""
    assert transport.size(str(tmp_path / "none")) == 0


def test_refused_write_is_a_failed_command(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as failed:
        transport.write(str(tmp_path / "no" / "where"), b"1")

    assert "o such" in failed.value.stderr or "onexistent" in failed.value.stderr


@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_directory_of_a_process_goes_with_it_and_its_files_come(
    kind: str, log_in: Callable[..., SshTransport], probe: str
) -> None:
    transport = LocalTransport() if kind == "local" else log_in(probe=probe)
    path = Path(transport.new_directory())
    script = f"stat -c %a {path}; head -c 1000000 /dev/zero > {path}/zeros; exit 3"

    process = transport.start(["sh", "-c", script], env={}, log=f"{path}/log", directory=str(path))

    assert process.wait(30) == 3
    for _ in range(2):
        assert process.left() == {"log": b"700\n", "zeros": bytes(1000000)}
    assert process.kill() == 3
    transport.remove_directory(str(path))
    wait_until("directory gone", lambda: not path.exists(), timeout=10)


def test_conversation_answers_line_by_line(transport: Transport) -> None:
    talk = transport.open('while read -r a; do echo "got $a"; done')

    talk.send("one")
    assert talk.receive() == "got one"
    talk.send("two")
    assert talk.receive() == "got two"
    talk.close()


def test_lines_that_come_together_are_told_apart(transport: Transport) -> None:
    talk = transport.open("printf 'a\\nb\\r\\n'; cat")

    assert [talk.receive(), talk.receive()] == ["a", "b"]
    talk.close()


def test_conversation_with_a_silent_program_times_out(transport: Transport) -> None:
    talk = transport.open("printf half; cat")

    with pytest.raises(Unreachable, match=r"no line within 0\.3 s") as late:
        talk.receive(timeout=0.3)

    assert late.value.seen == "half"
    talk.close()


def test_conversation_with_a_program_that_ends_tells_its_last_words(
    transport: Transport,
) -> None:
    talk = transport.open("sh -c 'echo sorry >&2; exit 1'")

    with pytest.raises(Unreachable, match="the program ended") as ended:
        talk.receive(timeout=10)

    assert ended.value.seen.strip() == "sorry"
    talk.close()


def test_word_to_a_program_that_ended_is_refused(transport: Transport) -> None:
    talk = transport.open("true")
    with pytest.raises(Unreachable, match="the program ended"):
        talk.receive(timeout=10)

    def refused() -> bool:
        try:
            talk.send("hello")
        except Unreachable as error:
            return "the program ended" in error.summary
        return False

    wait_until("refusal", refused, timeout=10)
    talk.close()


def test_nothing_is_left_of_many_commands(transport: Transport) -> None:
    transport.run("true")
    threads, files = threading.active_count(), open_files()

    for _ in range(10):
        transport.run("echo x; echo y >&2", stdin=b"z")
        talk = transport.open("cat")
        talk.send("a")
        assert talk.receive() == "a"
        talk.close()

    # A thread or a descriptor may be on its way out; ten of each would be a leak.
    assert threading.active_count() < threads + 10
    assert open_files() < files + 10


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))

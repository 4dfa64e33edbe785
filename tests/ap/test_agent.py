"""The agent of an AP host, compiled for this computer, and who speaks to it."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ap.agent import Agent
from harness.ap.agent_transport import AgentTransport
from harness.ap.agent_wire import (
    FileAnswer,
    FileRequest,
    Frame,
    FrameReader,
    Kind,
    decode_answers,
)
from harness.errors import CommandFailed, MachineDied, ParseError, Unreachable
from harness.wait import wait_until

NOBODY = 65534

# -- files ---------------------------------------------------------------------------------------


def test_many_files_are_read_in_one_trip_each_with_its_own_fate(
    transport: AgentTransport, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"\0\xff text\n")
    answers = transport.batch(
        [
            FileRequest("r", str(there)),
            FileRequest("r", str(tmp_path / "nowhere")),
            FileRequest("r", str(tmp_path)),
            FileRequest("s", str(there)),
        ]
    )

    assert [answer.error for answer in answers] == ["", "ENOENT", "EISDIR", ""]
    assert (answers[0].data, answers[3].text) == (b"\0\xff text\n", "8")


def test_a_large_file_comes_whole_and_from_an_offset(
    transport: AgentTransport, tmp_path: Path
) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "large").write_bytes(content)

    assert transport.read(str(tmp_path / "large")) == content
    assert transport.read(str(tmp_path / "large"), offset=1 << 20) == content[1 << 20 :]
    assert transport.read(str(tmp_path / "nowhere")) == b""


def test_a_write_is_one_write_and_makes_the_file(
    transport: AgentTransport, tmp_path: Path
) -> None:
    transport.write(str(tmp_path / "new"), b"first")
    transport.write(str(tmp_path / "new"), b"2nd")

    assert (tmp_path / "new").read_bytes() == b"2nd"
    assert transport.size(str(tmp_path / "new")) == 3


def test_a_refused_write_says_the_errno(transport: AgentTransport) -> None:
    with pytest.raises(CommandFailed) as caught:
        transport.write("/dev/full", b"x")
    assert (caught.value.exit_status, caught.value.stderr) == (
        errno.ENOSPC,
        "No space left on device",
    )

    with pytest.raises(CommandFailed, match="No such file"):
        transport.write("/sys/kernel/no_such_attribute", b"x")


def test_links_and_directories_are_read(transport: AgentTransport, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("../somewhere/else")
    (tmp_path / "name with\nnewline").touch()
    link, names = transport.batch(
        [FileRequest("l", str(tmp_path / "link")), FileRequest("d", str(tmp_path))]
    )

    assert link.text == "../somewhere/else"
    assert sorted(names.text.split("\0")[:-1]) == ["link", "name with\nnewline"]


def test_an_operation_that_nobody_knows_is_refused_and_the_rest_is_done(
    transport: AgentTransport,
) -> None:
    answers = transport.batch([FileRequest("?", "/"), FileRequest("s", "/")])

    assert [answer.error for answer in answers] == ["ENOSYS", ""]


def test_a_write_that_blocks_holds_up_nobody_else(
    transport: AgentTransport, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    blocked = transport.agent.begin([FileRequest("w", str(fifo), b"at last")])

    assert transport.run("echo meanwhile").stdout == "meanwhile\n"
    assert not blocked.done
    assert fifo.read_bytes() == b"at last"
    assert [answer.error for answer in blocked.wait(timeout=10)] == [""]
    assert [answer.error for answer in blocked.wait(timeout=10)] == [""], "asked again"


def test_an_answer_that_does_not_come_misses_its_deadline(
    transport: AgentTransport, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Unreachable, match=r"no answer to w .*fifo and 1 more within 0\.1 s"):
        transport.batch(
            [FileRequest("w", str(tmp_path / "fifo"), b"x"), FileRequest("s", "/")], timeout=0.1
        )
    (tmp_path / "fifo").read_bytes()


# -- programs ------------------------------------------------------------------------------------


def test_a_command_gives_its_output_its_errors_and_its_status(transport: AgentTransport) -> None:
    done = transport.run("cat; echo worse >&2; exit 3", stdin=b"better\n", check=False)

    assert (done.stdout, done.stderr, done.exit_status) == ("better\n", "worse\n", 3)


def test_words_are_not_read_by_a_shell(transport: AgentTransport) -> None:
    assert transport.run(["echo", "$HOME", "a  b"]).stdout == "$HOME a  b\n"


def test_a_signal_is_told_as_one(transport: AgentTransport) -> None:
    assert transport.run("kill -TERM $$", check=False).exit_status == -15


def test_a_program_that_is_not_there_is_told_as_a_shell_does(transport: AgentTransport) -> None:
    with pytest.raises(CommandFailed, match="exited with 127") as caught:
        transport.run(["/no/such/program"])
    assert caught.value.stderr == "No such file or directory"


def test_a_command_that_does_not_end_is_killed_with_its_children(
    transport: AgentTransport, tmp_path: Path
) -> None:
    with pytest.raises(Unreachable, match=r"did not end within 0\.3 s(.|\n)*began"):
        transport.run(f"echo began; sleep 600 & echo $! > {tmp_path}/pid; wait", timeout=0.3)
    pid = int((tmp_path / "pid").read_text())

    def is_gone() -> bool:
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().split()[2] == "Z"

    wait_until("the child ends", is_gone, timeout=10)


def test_much_input_and_output_pass_at_once(transport: AgentTransport) -> None:
    content = os.urandom(2 << 20).hex()

    assert transport.run("cat", stdin=content.encode()).stdout == content


def test_many_threads_talk_at_once(transport: AgentTransport) -> None:
    failures: list[str] = []

    def talk(number: int) -> None:
        for _ in range(5):
            said = transport.run(f"echo {number}; cat", stdin=str(number).encode()).stdout
            if said != f"{number}\n{number}":
                failures.append(said)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_conversation_goes_line_by_line(transport: AgentTransport) -> None:
    conversation = transport.open("while read -r line; do echo got $line; done")
    conversation.send("one")
    assert conversation.receive() == "got one"
    conversation.send("two")
    assert conversation.receive() == "got two"
    conversation.close()


def test_a_conversation_whose_program_ends_is_told_with_its_last_words(
    transport: AgentTransport,
) -> None:
    conversation = transport.open("echo cause >&2; exit 1")
    with pytest.raises(Unreachable, match=r"the program ended(.|\n)*cause"):
        conversation.receive()
    conversation.close()


# -- the session ---------------------------------------------------------------------------------


def test_who_greets_again_ends_what_ran_for_others(agent: Agent, tmp_path: Path) -> None:
    channel = agent.start(["/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 600"])
    file = tmp_path / "pid"
    pid = wait_until(
        "the program", lambda: file.read_text().strip() if file.exists() else "", timeout=10
    )
    agent.greet(timeout=10)

    wait_until("its end", lambda: not Path(f"/proc/{pid}").exists(), timeout=10)
    assert not channel.eof_received, "nobody hears of it any more"


def test_a_guard_ends_a_wait_with_its_cause(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    dead: list[bool] = []

    def guard() -> None:
        if dead:
            raise MachineDied("it died")

    agent = Agent(ours, name="nobody", guards=[guard])
    dead.append(True)
    with pytest.raises(MachineDied, match="it died"):
        agent.greet(timeout=30)
    agent.close()
    theirs.close()


def test_an_agent_that_does_not_answer_is_unreachable() -> None:
    ours, theirs = socket.socketpair()
    agent = Agent(ours, name="nobody")
    with pytest.raises(Unreachable, match=r"the agent does not answer within 0\.1 s"):
        agent.greet(timeout=0.1)
    agent.close()
    theirs.close()


@pytest.mark.parametrize(
    "end",
    [
        lambda theirs: theirs.close(),
        lambda theirs: theirs.sendall(b"this is no agent at all"),
    ],
    ids=["hangs up", "talks nonsense"],
)
def test_the_end_of_a_connection_is_told_to_all_who_wait(
    end: Callable[[socket.socket], None],
) -> None:
    ours, theirs = socket.socketpair()
    agent = Agent(ours, name="nobody")
    transport = AgentTransport(agent)
    caught: list[Exception] = []

    def run() -> None:
        try:
            transport.run("true")
        except Unreachable as error:
            caught.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    theirs.recv(1)
    end(theirs)
    for thread in threads:
        thread.join(20)

    assert len(caught) == 3
    with pytest.raises(Unreachable):
        transport.batch([FileRequest("s", "/")], timeout=10)
    agent.close()


# -- the wire ------------------------------------------------------------------------------------

frames = st.builds(
    Frame, st.integers(0, (1 << 32) - 1), st.sampled_from(list(Kind)), st.binary(max_size=60)
)


@given(st.lists(frames, max_size=6), st.integers(1, 40))
def test_frames_come_back_however_they_are_cut(sent: list[Frame], size: int) -> None:
    stream = b"".join(frame.encoded() for frame in sent)
    reader, found = FrameReader(), []
    for at in range(0, len(stream), size):
        found += reader.feed(stream[at : at + size])

    assert found == sent


@given(st.binary(max_size=100))
def test_garbage_is_no_frame_or_waited_for(garbage: bytes) -> None:
    try:
        found = FrameReader().feed(garbage)
    except ParseError:
        return
    assert all(len(frame.content) <= len(garbage) for frame in found)


@given(st.binary(max_size=60), st.integers(0, 4))
def test_answers_that_do_not_fit_are_refused(content: bytes, count: int) -> None:
    try:
        answers = decode_answers(content, count)
    except ParseError:
        return
    assert len(answers) == count


def test_an_errno_has_a_name_and_words() -> None:
    answer = FileAnswer(errno.EADDRINUSE)

    assert (answer.error, answer.reason) == ("EADDRINUSE", "Address already in use")
    assert (FileAnswer(0).error, FileAnswer(0).reason) == ("", "")
    assert FileAnswer(100000).error == "errno 100000"

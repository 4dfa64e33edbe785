"""``trapline map`` end to end: files, standard input, a QMP socket, and wrong input."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.errors import ConfigError, HarnessError, QmpFailed
from harness.model.memory_map_json import map_from_dict, map_to_dict
from harness.parse.mtree import parse_memory_map

SAMPLES = Path(__file__).parents[1] / "samples" / "mtree"
XL710 = SAMPLES / "seed-zhang-xl710-bar3-mtree-f.txt"
Q35 = SAMPLES / "local-10.0.2-q35-kvm-vtd-mtree-f-o.txt"
NVME_TREE = SAMPLES / "martins3-vfio-nvme-mtree.txt"


def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["map", *map(str, arguments)], input=stdin)


def shown(*arguments: object, stdin: str | bytes | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.exception or result.output
    return result.stdout


def refused(*arguments: object, stdin: str | bytes | None = None) -> HarnessError:
    result = run(*arguments, stdin=stdin)
    assert isinstance(result.exception, HarnessError), result.output
    return result.exception


def test_a_map_is_summed_up_by_view_and_its_memory_is_listed() -> None:
    out = shown(Q35)

    assert "7 flat views" in out
    assert re.search(r"^ +42 +2 +system +memory, cpu-memory-0$", out, re.M)
    assert re.search(r"^ +0 +0 +\(none\) +mch, .*igbvf x8", out, re.M)
    assert "cpu-memory-0, memory: 42 rows" in out
    assert re.search(r"-000000001fffffff  512 MiB +ram +KVM +pc.ram +/objects/pc.ram$", out, re.M)


def test_a_bar_is_shown_as_rows_and_as_a_picture() -> None:
    out = shown(XL710, "--device", "0000:03:00.3")

    assert out.split("\n\n")[1] == (
        "0000:03:00.3 BAR 3: 00000000fe800000-00000000fe807fff, 32 KiB\n"
        "  range                              size    kind  name                         offset\n"
        "  00000000fe800000-00000000fe80080f  0x810   i/o   msix-table\n"
        "  00000000fe800810-00000000fe800fff  0x7f0   i/o   0000:03:00.3 BAR 3           @0x810\n"
        "  00000000fe801000-00000000fe807fff  28 KiB  ramd  0000:03:00.3 BAR 3 mmaps[0]\n"
        "  pages of 4 KiB: 1 trapped-table, 7 direct\n"
        "  00000000fe800000 T=======\n"
        "  each letter 4 KiB: = direct, T trapped, M mixed (traps too), . absent\n"
    )


def test_no_colour_and_no_cut_line_where_the_output_is_no_terminal() -> None:
    out = shown(Q35)

    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) > 120


def test_the_page_size_of_the_host_changes_the_picture() -> None:
    out = shown(XL710, "--device", "0000:03:00.3", "--page", "64k")

    assert "pages of 64 KiB: 1 trapped-table\n" in out


def test_a_device_is_found_by_its_id_with_its_ports() -> None:
    out = shown(Q35, "--device", "igb0")

    assert "igb0 window: 00000000fe400000-00000000fe41ffff, 128 KiB" in out
    assert "igb0 window: ports, 000000000000c000-000000000000c01f, 0x20" in out
    assert "I/O ports: every access traps" in out


def test_parts_of_a_device_count_as_the_device() -> None:
    out = shown(Q35, "--device", "xhci0")

    assert "pages of 4 KiB: 1 trapped-table, 3 mixed\n  00000000fe7c8000 MMMT\n" in out


def test_the_tree_form_lists_the_bars_of_assigned_devices() -> None:
    result = run(NVME_TREE)

    assert "0000004800068000-000000480006bfff  16 KiB  0000:03:00.0  0" in result.stdout
    assert "A tree does not tell who answers" in result.stdout
    assert "no heading: taken for the tree form" in result.stderr


def test_both_forms_in_one_record_complete_each_other(tmp_path: Path) -> None:
    flat = (
        "  0000004800068000-000000480006afff (prio 0, ramd): 0000:03:00.0 BAR 0 mmaps[0] KVM\n"
        "  000000480006b000-000000480006b08f (prio 0, i/o): msix-table\n"
    )
    record = tmp_path / "record.txt"
    record.write_text(
        f'(qemu) info mtree -f\nFlatView #0\n AS "memory", root: system\n{flat}'
        f"(qemu) info mtree\n{NVME_TREE.read_text()}\n(qemu) "
    )

    out = shown(record, "--device", "0000:03:00.0")

    assert "0000:03:00.0 BAR 0: 0000004800068000-000000480006bfff, 16 KiB" in out
    assert "0000004800068000 ===T" in out


def test_json_is_the_form_of_the_evidence_files_and_is_read_again(tmp_path: Path) -> None:
    written = shown(Q35, "--json")
    evidence = tmp_path / "memory-map.json"
    evidence.write_text(written)

    memory_map = parse_memory_map(Q35.read_text())
    assert map_from_dict(json.loads(written)) == memory_map
    assert shown(evidence, "--device", "igb0") == shown(Q35, "--device", "igb0")


def test_json_of_a_device_holds_rows_and_page_classes() -> None:
    plain = json.loads(shown(XL710, "--device", "0000:03:00.3", "--json"))

    bar = plain["windows"][1]
    assert (plain["device"], plain["page"], bar["bar"], bar["port"]) == (
        "0000:03:00.3",
        4096,
        3,
        False,
    )
    assert bar["pages"] == [
        {"range": "00000000fe800000-00000000fe800fff", "class": "trapped-table"},
        {"range": "00000000fe801000-00000000fe807fff", "class": "direct"},
    ]
    assert bar["rows"][0]["name"] == "msix-table"


def test_standard_input_is_read() -> None:
    assert shown("-", stdin=XL710.read_bytes()) == shown(XL710)


@pytest.mark.parametrize(
    "wrap", [lambda text: {"return": text}, lambda text: text], ids=["reply", "value"]
)
def test_the_answer_of_qmp_may_be_given_as_json(wrap: Callable[[str], object]) -> None:
    answer = json.dumps(wrap(XL710.read_text().replace("\n", "\r\n")))

    assert shown("-", stdin=answer) == shown(XL710)


@pytest.mark.parametrize(
    ("arguments", "stdin", "kind", "said"),
    [
        (["/nonexistent/map.txt"], None, ConfigError, "No such file"),
        ([SAMPLES], None, ConfigError, "Is a directory"),
        (["-"], "hello\n", ConfigError, "standard input: no output of 'info mtree'"),
        (["-"], b"\xff\xfe\x00", ConfigError, "standard input is not text"),
        (["-"], "{broken", ConfigError, "begins like JSON and is none"),
        (["-"], '{"views": 3}', ConfigError, "'views' must be of type list"),
        (["-"], XL710.read_text() + "odd line\n", ConfigError, "line 6: not a line of info mtree"),
        (["-"], "(qemu) info mtree -f\nFlatView #0\n" * 2, ConfigError, "holds 2 flat maps"),
        (["-"], "mtree: unsupported option -f\n", ConfigError, "does not know the option -f"),
        ([NVME_TREE, "--device", "0000:03:00.0"], None, ConfigError, "holds only the tree form"),
        ([NVME_TREE, "--json"], None, ConfigError, "holds only the tree form"),
        ([XL710, "--device", "nvme0"], None, ConfigError, "devices in this map: 0000:03:00.3"),
        ([XL710, "--page", "5000"], None, ConfigError, "not a page size: 5000"),
        ([XL710, "--page", "big"], None, ConfigError, "not a page size: big"),
        ([XL710, "--expect", "f.json"], None, ConfigError, "--expect needs --device"),
        (["unix:/nonexistent/qmp"], None, ConfigError, "cannot connect to the QMP socket"),
    ],
)
def test_wrong_input_is_refused_with_what_to_do(
    arguments: list[object],
    stdin: str | bytes | None,
    kind: type[HarnessError],
    said: str,
) -> None:
    error = refused(*arguments, stdin=stdin)

    assert type(error) is kind
    assert said in str(error)


def test_an_expectation_that_cannot_be_read_is_no_difference(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('{"function": 3}')

    error = refused(XL710, "--device", "0000:03:00.3", "--expect", tmp_path / "f.json")

    assert type(error) is ConfigError
    assert "f.json" in error.summary and error.hint


def test_what_is_no_map_ends_with_the_status_of_wrong_usage() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "map", "/dev/null"], capture_output=True, text=True
    )

    assert done.returncode == 2
    assert "next: give a text" in done.stderr


XL710_CASE = {
    "function": {
        "bdf": "0000:03:00.3",
        "id": "8086:154c",
        "class": "0x020000",
        "bars": [
            {"index": 0, "kind": "mem64", "size": "0x800000", "prefetchable": True},
            {"index": 3, "kind": "mem64", "size": "0x8000", "prefetchable": True},
        ],
        "msix": {
            "offset": 112,
            "vectors": 129,
            "table_bar": 3,
            "table_offset": 0,
            "pba_bar": 3,
            "pba_offset": "0x1000",
        },
    },
    "bar_addresses": {"0": "0xfe000000", "3": "0xfe800000"},
    "qemu": "4.0.0",
    "kvm": False,
}


@pytest.mark.parametrize(
    ("kernel", "status", "said"),
    [
        # Linux 4.16 lets the page of the table be mapped (commit a32295c612c5).
        ("4.15.0", 0, "0000:03:00.3 is mapped as expected."),
        ("4.16.0", 1, "BAR 3"),
    ],
)
def test_a_difference_from_what_must_be_is_exit_status_1(
    tmp_path: Path, kernel: str, status: int, said: str
) -> None:
    case = tmp_path / "function.json"
    case.write_text(json.dumps(XL710_CASE | {"kernel": kernel}))

    result = run(XL710, "--device", "0000:03:00.3", "--expect", case)

    assert result.exit_code == status, result.exception
    assert said in result.stdout.rpartition("\n\n")[2]


def test_a_device_that_is_not_there_at_all_is_a_difference(tmp_path: Path) -> None:
    case = tmp_path / "function.json"
    case.write_text(json.dumps(XL710_CASE | {"kernel": "4.15.0"}))

    result = run(Q35, "--device", "0000:03:00.3", "--expect", case)

    assert result.exit_code == 1
    assert result.stdout.startswith("0000:03:00.3 has no rows in this map.\n")


def test_a_map_of_ports_alone_is_not_taken_for_memory() -> None:
    ports = 'FlatView #0\n AS "I/O", root: io\n'

    error = refused("-", "--device", "x", stdin=ports)

    assert "does not show guest memory" in str(error)


def test_a_map_without_any_named_device_says_how_to_take_a_better_one() -> None:
    error = refused(SAMPLES / "local-10.0.2-q35-kvm-vtd-mtree-f.txt", "--device", "igb0")

    assert "info mtree -f -o" in str(error)


def test_the_help_shows_an_example() -> None:
    assert "trapline map unix:/run/vm.qmp" in " ".join(run("--help").output.split())


class FakeQmp:
    """Serves one client on a Unix socket: QMP, with the monitor answers it is given."""

    def __init__(self, path: Path, answers: dict[str, str], greeting: str) -> None:
        self.answers, self.greeting = answers, greeting
        self.asked: list[str] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        try:
            client, _ = self.listener.accept()
        except OSError:
            return
        with client:
            client.sendall(self.greeting.encode() + b"\r\n")
            for request in self.requests(client):
                reply: dict[str, Any] = {"return": self.answer(request)}
                if "id" in request:
                    reply["id"] = request["id"]
                client.sendall(json.dumps(reply).encode() + b"\r\n")

    @staticmethod
    def requests(client: socket.socket) -> Iterator[dict[str, Any]]:
        """Yield what the client says; it ends its objects with nothing at all."""
        text = ""
        while piece := client.recv(4096):
            text += piece.decode()
            try:
                request, used = json.JSONDecoder().raw_decode(text)
            except ValueError:
                continue
            text = text[used:].lstrip()
            yield request

    def answer(self, request: dict[str, Any]) -> object:
        if request["execute"] != "human-monitor-command":
            return {}
        command = request["arguments"]["command-line"]
        self.asked.append(command)
        return self.answers[command].replace("\n", "\r\n")

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)


GREETING = json.dumps(
    {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}}, "capabilities": []}}
)
Serve = Callable[..., FakeQmp]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    running = []

    def start(answers: dict[str, str], greeting: str = GREETING) -> FakeQmp:
        running.append(FakeQmp(tmp_path / "qmp", answers, greeting))
        return running[-1]

    yield start
    for server in running:
        server.close()


TREE = (SAMPLES / "local-10.0.2-q35-kvm-vtd-mtree.txt").read_text()


def test_a_running_qemu_is_asked_over_its_socket(serve: Serve, tmp_path: Path) -> None:
    qemu = serve({"info mtree -f -o": Q35.read_text(), "info mtree": TREE})

    assert shown(f"unix:{tmp_path}/qmp", "--device", "igb0") == shown(Q35, "--device", "igb0")
    assert qemu.asked == ["info mtree -f -o", "info mtree"]


def test_an_old_qemu_is_asked_again_without_owners(serve: Serve, tmp_path: Path) -> None:
    qemu = serve(
        {
            "info mtree -f -o": "mtree: unsupported option -o\n",
            "info mtree -f": XL710.read_text(),
            "info mtree": TREE,
        }
    )

    assert shown(f"unix:{tmp_path}/qmp") == shown(XL710)
    assert qemu.asked[1] == "info mtree -f"


def test_a_qemu_without_flat_form_is_an_error_that_says_so(serve: Serve, tmp_path: Path) -> None:
    text = "mtree: unsupported option -f\n"
    serve({"info mtree -f -o": text, "info mtree -f": text})

    assert "does not know the option -f" in str(refused(f"unix:{tmp_path}/qmp"))


def test_a_socket_that_speaks_something_else_is_no_qmp(serve: Serve, tmp_path: Path) -> None:
    serve({}, greeting="SSH-2.0-OpenSSH_9.2")

    error = refused(f"unix:{tmp_path}/qmp")

    assert isinstance(error, QmpFailed)
    assert "does not speak QMP" in str(error)


def test_a_socket_given_as_a_file_says_how_to_ask_it(serve: Serve, tmp_path: Path) -> None:
    serve({})

    assert f"unix:{tmp_path}/qmp" in str(refused(tmp_path / "qmp"))


def test_text_is_also_a_map_for_the_json_of_the_evidence() -> None:
    memory_map = parse_memory_map(XL710.read_text())

    assert json.loads(shown(XL710, "--json")) == json.loads(json.dumps(map_to_dict(memory_map)))

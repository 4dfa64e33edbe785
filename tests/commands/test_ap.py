"""``trapline ap plan``: wishes from words and files, hosts from trees, answers and exit status."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.commands import ap
from harness.errors import ConfigError
from harness.model.ap.definitions import nodedev_problems, read_mdevctl
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.plan import Free

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TOML = """
[guest.web]
adapters = [5, "6"]
domains = "4,0xab"
control_domains = []
uuid = "62177883-F1BB-47f0-914d-32a22e3a8804"

[guest.db]
adapters = [5]
domains = ["0x47", 255]
"""


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["ap", "plan", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_a_word_names_a_guest() -> None:
    (guest,) = ap.read_wish(["web=5,8-10:4,0xab"])

    assert guest.name == "web"
    assert guest.matrix == ApMatrix.of([5, 8, 9, 10], [4, 0xAB], [4, 0xAB])


@pytest.mark.parametrize(("word", "control"), [("a=5:4", [4]), ("a=5:4:", []), ("a=5:4:9", [9])])
def test_control_domains_are_the_domains_unless_given(word: str, control: list[int]) -> None:
    (guest,) = ap.read_wish([word])

    assert list(guest.matrix.control_domains) == control


def test_a_file_names_guests(tmp_path: Path) -> None:
    path = tmp_path / "guests.toml"
    path.write_text(TOML)

    web, db, third = ap.read_wish([str(path), "third=6:0x47"])

    assert web.matrix == ApMatrix.of([5, 6], [4, 0xAB])
    assert web.uuid == "62177883-f1bb-47f0-914d-32a22e3a8804"
    assert db.matrix == ApMatrix.of([5], [0x47, 255], [0x47, 255])
    assert third.name == "third"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("a=5", "NAME=ADAPTERS:DOMAINS"),
        ("a=1:2:3:4", "NAME=ADAPTERS:DOMAINS"),
        ("=5:4", "no name for a guest"),
        ("a/b=5:4", "no name for a guest"),
        ("a=5:256", "256 is not 0 to 255"),
        ("a=5:-1", "half a range"),
        ("a=04:1", "'04' is no number"),
        ("a=9-8:1", "runs backwards"),
        ("a=5-:1", "half a range"),
        ("no-such-file", "cannot read no-such-file"),
    ],
)
def test_a_wish_that_cannot_be_read_is_told(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ap.read_wish([word])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=", "is not TOML"),
        ("", "names no guests"),
        ("[host]\n", "names no guests"),
        ("[guest.a]\nadapter = 5\n", "guest a has .'adapter'."),
        ("[guest]\na = 5\n", "guest a has 5"),
        ("[guest.a]\nadapters = 5\n", "is no list"),
        ("[guest.a]\nadapters = [true]\n", "is no number"),
        ("[guest.a]\nuuid = 'x'\n", "'x' is no UUID"),
    ],
)
def test_a_file_that_is_wrong_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "guests.toml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=message):
        ap.read_wish([str(path)])


def test_two_guests_have_two_names_and_uuids(tmp_path: Path) -> None:
    path = tmp_path / "guests.toml"
    uuid = ap.read_wish(["a=5:4"])[0].uuid
    path.write_text(f"[guest.b]\nuuid = '{uuid}'\n")

    with pytest.raises(ConfigError, match="two guests are called a"):
        ap.read_wish(["a=5:4", "a=6:4"])
    with pytest.raises(ConfigError, match="guests a and b have one UUID"):
        ap.read_wish(["a=5:4", str(path)])


def test_a_kernel_is_a_version() -> None:
    assert ap.parse_version("7.2.12+deb13") == (7, 2, 12)
    with pytest.raises(ConfigError, match="'new' is no kernel version"):
        ap.parse_version("new")


def test_a_plan_without_conflicts_ends_well() -> None:
    status, text = run("one=1,2:1", "three=1:2")

    assert status == 0
    assert "Conflicts: none" in text


def test_a_conflict_is_an_exit_status() -> None:
    status, text = run("one=1,2:1", "two=2,3:1,2", "--table")

    assert status == 1
    assert text.splitlines()[1] == "0001     1  !  2"


def test_answers_differ_by_kernel() -> None:
    assert run("a=5:4", "--free", "queues", "--kernel", "7.2")[0] == 0
    assert run("a=5:4", "--free", "queues", "--kernel", "6.12")[0] == 1


def test_nothing_to_do_is_told() -> None:
    with pytest.raises(ConfigError, match="no guests, and no host to look at"):
        run()


def test_files_are_written_and_sound(tmp_path: Path) -> None:
    status, _ = run("web=5:4", "--write", str(tmp_path / "p"), "--svg", str(tmp_path / "t.svg"))

    assert status == 0
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "hostdev-web.xml", "mdevctl-web.json", "nodedev-web.xml", "sysfs.sh",
    ]  # fmt: skip
    assert nodedev_problems((tmp_path / "p/nodedev-web.xml").read_text()) == ()
    matrix, _ = read_mdevctl((tmp_path / "p/mdevctl-web.json").read_text())
    assert matrix == ApMatrix.of([5], [4], [4])
    assert (tmp_path / "t.svg").read_text().startswith("<svg")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="cannot write"):
        run("web=5:4", "--write", str(tmp_path / "file"))


def test_json_has_steps_and_answers() -> None:
    _, text = run("one=2:1", "two=2:1", "--json")

    plan = json.loads(text)
    assert [guest["guest_matrix"] for guest in plan["guests"]] == [["02.0001"], ["02."]]
    assert [step["errno"] for step in plan["steps"] if step["errno"]] == ["EADDRINUSE"]
    assert plan["apmask"].startswith("0xdfff")
    assert "<hostdev" in plan["guests"][0]["hostdev"]
    assert plan["remarks"] == []


# Hosts.


def write_host(root: Path) -> Path:
    """Write the sysfs of a host: card 05 is free, of card 06 one queue has no driver."""
    for path, text in {
        "bus/ap/apmask": "0xfb" + "f" * 62,
        "bus/ap/aqmask": "0x" + "f" * 64,
        "bus/ap/ap_max_adapter_id": "63",
        "bus/ap/ap_usage_domain_mask": "0x08" + "0" * 62,
        "devices/ap/card05/hwtype": "13",
        "devices/ap/card05/05.0004/config": "1",
        "devices/ap/card06/hwtype": "13",
        "devices/ap/card06/06.0004/config": "1",
        "devices/vfio_ap/matrix/features": "guest_matrix hotplug ap_config",
    }.items():
        file = root / "sys" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    (root / "sys/devices/ap/card05/05.0004/driver").symlink_to(
        "../../../../bus/ap/drivers/vfio_ap"
    )
    return root


def test_a_host_is_looked_at(tmp_path: Path) -> None:
    status, text = run("--host-tree", str(write_host(tmp_path)))

    assert status == 0
    assert "2 cards, 2 queues, 1 of them with vfio_ap, 0 mediated devices." in text
    assert "warning 06.0004: has no driver" in text


def test_a_recorded_host_is_looked_at() -> None:
    """The recording is of a real kernel whose adapters were modelled."""
    status, text = run("--host-tree", str(EXAMPLES / "ap-host.txt"))

    assert status == 0
    assert "3 cards, 12 queues, 7 of them with vfio_ap, 1 mediated device." in text
    assert "adapter 05 is not passed on: 05.0004 is not bound to vfio_ap" in text


def test_json_of_a_host_says_what_is_odd() -> None:
    _, text = run("--host-tree", str(EXAMPLES / "ap-host.txt"), "--json")

    first, *_ = json.loads(text)["remarks"]
    assert (first["weight"], first["where"], first["what"]) == (
        "warning", "05.0004", "has no driver",
    )  # fmt: skip
    assert first["next"].endswith("drivers/vfio_ap/bind")


def test_a_plan_is_made_on_a_host(tmp_path: Path) -> None:
    host = ap.read_host(write_host(tmp_path), "6.12")

    plan = ap.plan(ap.read_wish(["a=5:4"]), free=Free.ADAPTERS, kernel="6.12", host=host)

    assert "apmask" not in " ".join(step.command for step in plan.steps)
    assert plan.conflicts == ()
    assert ap.plan(
        ap.read_wish(["a=0x40:4"]), free=Free.ADAPTERS, kernel="6.12", host=host
    ).conflicts


def test_a_directory_without_a_host_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no AP bus"):
        run("--host-tree", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no"):
        run("--host-tree", str(tmp_path / "none"))

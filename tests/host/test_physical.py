"""Hosts that outlive us: how they are named, what is claimed, what is put back."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError, DeviceBusy, HostError, NoIommu, Unreachable
from harness.host.journal import Journal
from harness.host.physical import SshUrl, canonical, connect, ssh_transport
from harness.model.pci import Bdf

URL = "ssh://root@lab:22"
NVME = Bdf.parse("0000:01:00.0")
NIC = Bdf.parse("0000:02:00.0")


# -- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("ssh://lab", "ssh://root@lab:22"),
        ("ssh://me@lab:2222?key=/some/key", "ssh://me@lab:2222"),
        ("ssh://[::1]:2222", "ssh://root@[::1]:2222"),
        ("local", "local"),
    ],
)
def test_host_has_one_name_however_it_is_spelt(url: str, name: str) -> None:
    assert canonical(url) == name


def test_url_with_its_files_can_be_read_again(tmp_path: Path) -> None:
    url = SshUrl.parse(f"ssh://me@lab:2222?key={tmp_path}/a b&known_hosts=/k")

    assert url == SshUrl("me", "lab", 2222, tmp_path / "a b", Path("/k"))
    assert SshUrl.parse(url.full) == url


@pytest.mark.parametrize("url", ["http://lab", "ssh://", "ssh://lab:port", "ssh://lab?kye=/k"])
def test_url_that_names_no_host_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        SshUrl.parse(url)


def test_key_that_is_not_there_is_told_before_anything_is_tried() -> None:
    with pytest.raises(ConfigError, match="the file of key is not there"):
        connect("ssh://lab.invalid?key=/no/such/key")


def test_a_host_that_does_not_answer_is_told_with_what_can_be_done() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    with pytest.raises(Unreachable, match=rf"^ssh://root@127.0.0.1:{port} does not ans") as error:
        ssh_transport(SshUrl("root", "127.0.0.1", port), timeout=0.1)

    assert "refused" in error.value.seen
    assert "--host" in error.value.hint


@pytest.mark.parametrize(
    ("name", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("lab", False),
    ],
)
def test_loopback_addresses_are_known(name: str, is_loopback: bool) -> None:
    assert SshUrl("root", name, 22).is_loopback is is_loopback


# -- claims -------------------------------------------------------------------------------------


def test_second_run_does_not_get_the_device(fake: Any) -> None:
    one = fake.opened()
    two = fake.opened(run="/results/two")
    one.bind(NVME, "vfio-pci")

    with pytest.raises(DeviceBusy, match="used by another run") as busy:
        two.bind(NVME, "vfio-pci")
    assert "/results/one" in busy.value.seen
    two.bind(NIC, "vfio-pci")

    two.close()
    assert (fake.driver(NVME), fake.driver(NIC)) == ("vfio-pci", "e1000e")
    one.close()
    assert fake.driver(NVME) == "nvme"


def test_closed_host_lets_the_next_run_have_the_device(fake: Any) -> None:
    one = fake.opened()
    one.bind(NVME, "vfio-pci")
    one.close()
    two = fake.opened(run="/results/two")

    two.bind(NVME, "vfio-pci")

    assert fake.driver(NVME) == "vfio-pci"
    two.close()


def test_claim_alone_keeps_others_away(fake: Any) -> None:
    """A device that somebody has given to vfio-pci before is claimed without being bound."""
    one, two = fake.opened(), fake.opened()

    assert one.claim(NVME) == "IOMMU group 5"
    with pytest.raises(DeviceBusy):
        two.claim(NVME)
    one.close()
    two.close()


def test_function_in_no_group_is_not_taken(fake: Any) -> None:
    lone = Bdf.parse("0000:03:00.0")
    fake.add(lone, "nvme", group=None)
    (fake.root / "proc/cmdline").write_text("root=/dev/vda quiet\n")
    host = fake.opened()

    with pytest.raises(NoIommu, match="in no IOMMU group") as refused:
        host.bind(lone, "vfio-pci")

    assert "root=/dev/vda quiet" in refused.value.seen
    assert fake.driver(lone) == "nvme"
    host.close()


def test_host_says_that_something_is_pending(fake: Any, caplog: pytest.LogCaptureFixture) -> None:
    left = fake.opened()
    left.bind(NVME, "vfio-pci")
    left.locks.release()  # as when its process is killed

    with caplog.at_level(logging.WARNING):
        later = fake.opened()

    assert "1 changes of other runs are not put back yet" in caplog.text
    later.bind(NVME, "vfio-pci")
    later.close()
    assert fake.driver(NVME) == "nvme"
    assert Journal.of_host(URL).pending() == ()


def test_one_stuck_device_does_not_keep_the_others(fake: Any) -> None:
    host = fake.opened()
    host.bind(NVME, "vfio-pci")
    host.bind(NIC, "vfio-pci")
    fake.refuse("e1000e", NIC)

    with pytest.raises(HostError, match="could not be put back") as stuck:
        host.close()

    assert "e1000e did not take" in stuck.value.seen
    assert "trapline restore" in stuck.value.hint
    assert fake.driver(NVME) == "nvme"
    assert host.locks.held == ()

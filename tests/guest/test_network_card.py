"""What a network card is told, and what of a table of interrupts is its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from harness.guest.network_card import NetworkCard
from harness.guest.system import System
from harness.model.pci import Bdf
from harness.parse.interrupts import parse_interrupts

BDF = Bdf.parse("0000:02:00.0")
TABLE = """\
           CPU0
  4:       10   IO-APIC   4-edge      ttyS0
 24:        7   PCI-MSIX-0000:00:02.0   0-edge      eth1-not-ours
 30:        5   PCI-MSIX-0000:02:00.0   0-edge      eth10
 31:        1   PCI-MSIX-0000:02:00.0   0-edge      eth3
 32:        2   PCI-MSIX-0000:02:00.0   1-edge      eth3-TxRx-0
"""


@dataclass
class There:
    """A system with one card; it remembers what it was told."""

    probe_path: str = "/usr/bin/probe"
    said: list[str] = field(default_factory=list)

    def list_directory(self, path: str) -> list[str]:
        assert path == f"/sys/bus/pci/devices/{BDF}/net"
        return ["eth3"]

    def resource_file(self, bdf: Bdf, bar: int) -> str:
        return f"/{bdf}/resource{bar}"

    def run(self, command: str | Sequence[str]) -> None:
        self.said.append(command if isinstance(command, str) else " ".join(command))

    def probe(self, *words: object) -> None:
        self.said.append(" ".join(str(word) for word in words))


def card(there: There, driver: str = "igb") -> NetworkCard:
    return NetworkCard(cast(System, cast(Any, there)), BDF, driver)


@pytest.mark.parametrize(
    ("driver", "register", "bits"), [("igb", "0x1520", "0x2"), ("e1000e", "0xc8", "0x400000")]
)
def test_second_vector_is_raised_by_the_register_of_its_kind(
    driver: str, register: str, bits: str
) -> None:
    there = There()

    card(there, driver).raise_vector(1, 20)

    access = f"/usr/bin/probe mem write /{BDF}/resource0 {register} --value {bits}"
    assert there.said == [f"for n in $(seq 20); do {access} > /dev/null || exit 1; done"]


def test_burst_is_one_program() -> None:
    there = There()

    card(there).burst(1000)

    assert there.said == [f"mem write /{BDF}/resource0 {0x1504} --value 16 --count 1000"]


def test_interface_comes_up_without_addresses_of_its_own() -> None:
    there = There()

    card(there).up()
    card(there).down()

    assert "conf/eth3/disable_ipv6" in there.said[0]
    assert there.said[0].endswith("ip link set eth3 up")
    assert there.said[1] == "ip link set eth3 down"


def test_driver_is_told_to_do_with_msi_and_told_otherwise_afterwards() -> None:
    there = There()

    with card(there, "e1000e").by_msi():
        assert there.said == ["modprobe -r e1000e && modprobe e1000e IntMode=1"]

    assert there.said[1:] == ["modprobe -r e1000e && modprobe e1000e"]


def test_interrupts_of_the_interface_are_told_from_those_of_others() -> None:
    assert card(There()).arrived(parse_interrupts(TABLE)) == {0: 1, 1: 2}

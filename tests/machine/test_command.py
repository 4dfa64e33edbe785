"""Command lines: the whole of them, and what holds for every one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from harness.host.virtual_spec import (
    INTEL_IOMMU,
    HostFiles,
    assigned_device,
    nested_spec,
    virtual_host_spec,
)
from harness.machine.command import Device, MachineSpec, Sockets, command_line, option_string
from harness.testing import must_fail

FILES = HostFiles("/i/vmlinuz", "/i/initrd", "/i/root", "/i/qemu", "/i/guest", "/i/modules")
HOST = virtual_host_spec(FILES, accel="kvm", nvme_disk="/r/nvme.img")
ASSIGNED = [assigned_device("nvme", "0000:01:00.0"), assigned_device("edu", "0000:00:0c.0")]
NESTED = nested_spec(accel="kvm", kernel="/k", initrd="/i", assigned=ASSIGNED)
FIRMWARE = nested_spec(accel="tcg,thread=multi", assigned=ASSIGNED)
SHIELDED = nested_spec(accel="kvm", kernel="/k", initrd="/i", iommu=INTEL_IOMMU, assigned=ASSIGNED)
REFUSED = MachineSpec(
    "refused",
    accel="kvm",
    machine_options={"kernel-irqchip": "on"},
    iommu=Device("intel-iommu", "iommu", options={"intremap": True}),
)
ALL = {
    "host": HOST,
    "nested": NESTED,
    "firmware": FIRMWARE,
    "shielded": SHIELDED,
    "refused": REFUSED,
}


def lines(spec: MachineSpec) -> str:
    """Return an option and its value on one line each."""
    text = ""
    for word in command_line(spec, Sockets("/run/x")):
        text += ("\n" if word.startswith("-") else " ") + word
    return text.lstrip() + "\n"


def devices(spec: MachineSpec) -> list[dict[str, str]]:
    words = command_line(spec, Sockets("/run/x"))
    found = []
    for option, value in itertools.pairwise(words):
        if option == "-device":
            driver, *rest = value.split(",")
            found.append({"driver": driver, **dict(item.split("=", 1) for item in rest)})
    return found


@pytest.mark.parametrize("name", ALL)
def test_a_command_line_is_what_it_was(name: str, snapshot: SnapshotAssertion) -> None:
    assert lines(ALL[name]) == snapshot


@pytest.mark.parametrize("name", ALL)
def test_every_device_has_an_id_of_its_own(name: str) -> None:
    ids = [device.get("id") for device in devices(ALL[name])]

    assert None not in ids
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", ALL)
def test_every_device_on_a_bus_has_an_address_of_its_own(name: str) -> None:
    placed = [d for d in devices(ALL[name]) if d["driver"] != "intel-iommu"]
    slots = [(device.get("bus"), device.get("addr")) for device in placed]

    assert all(bus and address for bus, address in slots)
    assert len(set(slots)) == len(slots)


@pytest.mark.parametrize("name", ["host", "shielded", "refused"])
def test_the_iommu_comes_before_every_other_device(name: str) -> None:
    assert devices(ALL[name])[0]["driver"] == "intel-iommu"


@pytest.mark.parametrize("name", ALL)
def test_nothing_comes_by_default_and_both_monitors_are_there(name: str) -> None:
    words = command_line(ALL[name], Sockets("/run/x"))

    assert {"-nodefaults", "-no-user-config"} <= set(words)
    assert words.count("-mon") == 2


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True),
        st.one_of(st.booleans(), st.integers(), st.text(st.characters(min_codepoint=32))),
        max_size=4,
    )
)
def test_any_value_comes_out_of_an_option_as_it_went_in(
    options: Mapping[str, str | int | bool],
) -> None:
    text = option_string("driver", options)

    words = {True: "on", False: "off"}
    expected = {k: words[v] if isinstance(v, bool) else str(v) for k, v in options.items()}
    assert read_like_qemu(text) == ("driver", expected)


def read_like_qemu(text: str) -> tuple[str, dict[str, str]]:
    """Read an option as QEMU's get_opt_value() does: a doubled comma is one comma."""
    parts, current, at = [], "", 0
    while at < len(text):
        if text.startswith(",,", at):
            current, at = current + ",", at + 2
        elif text[at] == ",":
            parts.append(current)
            current, at = "", at + 1
        else:
            current, at = current + text[at], at + 1
    head, *rest = [*parts, current]
    return head, dict(item.split("=", 1) for item in rest)


def test_options_of_a_device_can_be_added_without_changing_it() -> None:
    plain = Device("vfio-pci", "nvme", "rp0", "0", {"host": "01:00.0"})

    altered = plain.having(x_no_mmap=True)

    assert str(altered) == "vfio-pci,id=nvme,bus=rp0,addr=0,host=01:00.0,x-no-mmap=on"
    assert "x-no-mmap" not in str(plain)


def test_a_device_says_the_same_to_the_monitor_as_on_the_command_line() -> None:
    device = Device("edu", "edu", "pcie.0", "0xc", {"dma_mask": "0xff"})

    assert device.arguments() == {"id": "edu", "bus": "pcie.0", "addr": "0xc", "dma_mask": "0xff"}


def test_a_device_behind_a_socket_is_said_in_json() -> None:
    device = Device("vfio-user-pci", "fake", "rp0", "0", {"x-send-queued": True}, "/run/a,b.sock")

    assert json.loads(str(device)) == {
        "driver": "vfio-user-pci", "id": "fake", "bus": "rp0", "addr": "0",
        "socket": {"type": "unix", "path": "/run/a,b.sock"}, "x-send-queued": True,
    }  # fmt: skip
    assert json.loads(str(device)) == {"driver": device.driver, **device.arguments()}


def test_a_machine_may_start_paused_and_take_further_words() -> None:
    spec = MachineSpec("x", paused=True, no_reboot=False, extra=("-d", "guest_errors"))

    assert command_line(spec, Sockets("/r"))[-3:] == ["-S", "-d", "guest_errors"]


def check_all_named_and_placed(all_devices: Sequence[Mapping[str, str]]) -> None:
    """Every device has an id; every one but the IOMMU, which is not placed, a bus and a slot."""
    unnamed = [device["driver"] for device in all_devices if not device.get("id")]
    floating = [
        device["driver"]
        for device in all_devices
        if device["driver"] != "intel-iommu" and not (device.get("bus") and device.get("addr"))
    ]
    assert (unnamed, floating) == ([], [])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.rule("ENV-06")
def test_no_device_depends_on_a_default_slot(name: str) -> None:
    check_all_named_and_placed(devices(ALL[name]))


@pytest.mark.parametrize("lost", ["id", "addr"])
@pytest.mark.negative_control("ENV-06")
def test_a_device_without_a_name_or_a_slot_is_noticed(lost: str) -> None:
    several = [dict(device) for device in devices(NESTED)]
    del several[-1][lost]

    with must_fail():
        check_all_named_and_placed(several)


def check_traces_go_to_a_file(words: Sequence[str]) -> None:
    """``-D`` and a path: never a pipe that nobody may read."""
    assert "-D" in words, "traces go to stderr"
    assert words[words.index("-D") + 1].startswith("/"), words


@pytest.mark.parametrize("name", ALL)
@pytest.mark.rule("ENV-16")
def test_traces_go_to_a_file(name: str) -> None:
    check_traces_go_to_a_file(command_line(ALL[name], Sockets("/run/x")))


@pytest.mark.negative_control("ENV-16")
def test_traces_on_stderr_are_noticed() -> None:
    words = command_line(NESTED, Sockets("/run/x"))
    at = words.index("-D")

    with must_fail():
        check_traces_go_to_a_file([*words[:at], *words[at + 2 :]])

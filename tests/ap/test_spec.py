"""The machine line of an AP host."""

from __future__ import annotations

from dataclasses import replace

from syrupy.assertion import SnapshotAssertion

from harness.ap.spec import ApHostFiles, ApHostSpec, default_hardware, inner_spec
from harness.machine.command import Sockets, command_line

FILES = ApHostFiles("/k/vmlinuz", "/k/initrd", "/k/inner-qemu.erofs")


def line(spec: ApHostSpec, *, traps: bool = True) -> list[str]:
    return command_line(spec.machine(traps=traps), Sockets("/run/x"))


def test_the_command_line_of_an_ap_host(snapshot: SnapshotAssertion) -> None:
    assert line(ApHostSpec(FILES)) == snapshot


def test_without_traps_it_has_no_ap_facilities_and_runs_at_once() -> None:
    words = line(ApHostSpec(FILES), traps=False)

    assert "-S" not in words
    assert "facilities" not in words[words.index("-append") + 1]


def test_words_for_the_kernel_and_no_disk() -> None:
    spec = ApHostSpec(replace(FILES, inner_qemu=""), append="ap.apmask=0x0", cpus=2)
    words = line(spec)

    assert words[words.index("-append") + 1].endswith("facilities=12,15 ap.apmask=0x0")
    assert words[words.index("-smp") + 1] == "2"
    assert not any("virtio-blk" in word for word in words)


def test_the_usual_adapters_are_those_of_the_examples() -> None:
    hardware = default_hardware()

    assert sorted(hardware.cards) == [4, 5, 6]
    assert list(hardware.domains) == [0x04, 0x47, 0xAB, 0xFF]
    assert set(hardware.control_domains) - set(hardware.domains) == {0x10}


def test_the_inner_machine_never_runs() -> None:
    words = command_line(
        inner_spec("inner", device={"sysfsdev": "/sys/x"}, cpu="host,ap=off"), Sockets("/run/y")
    )

    assert "-S" in words
    assert words[words.index("-device") + 1] == "vfio-ap,sysfsdev=/sys/x"
    assert words[words.index("-cpu") + 1] == "host,ap=off"

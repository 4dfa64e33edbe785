"""The benchmark of the parser: its machine, and what it measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.bench.parse import DEVICES, KINDS, Texts, machine_of_32, on_texts, split_rows
from harness.machine.command import Sockets, command_line

FLAT = """\
FlatView #0
 AS "memory", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
"""
TREE = """\
address-space: memory
  0000000000000000-ffffffffffffffff (prio 0, i/o): system
    0000000000000000-000000000009ffff (prio 0, ram): pc.ram
"""


@pytest.mark.parametrize("kinds", [KINDS, KINDS[1:2]])
def test_the_machine_has_32_devices_each_in_a_place_of_its_own(kinds: tuple[str, ...]) -> None:
    spec = machine_of_32(lambda driver: driver in kinds)

    devices = [device for device in spec.devices if device.driver in kinds]
    assert len(devices) == DEVICES
    assert len({(device.bus, device.addr) for device in spec.devices}) == 2 * DEVICES
    assert command_line(spec, Sockets("/run")).count("-device") == 2 * DEVICES


def test_both_texts_are_parsed_by_both_subjects(tmp_path: Path) -> None:
    benchmark = on_texts(Texts(FLAT, TREE))

    for subject in benchmark.subjects:
        sample = subject.run(tmp_path)
        assert set(sample) == {measure.name for measure in benchmark.measures}
        assert all(value > 0 for value in sample.values())


def test_the_floor_sees_every_row() -> None:
    assert (split_rows(FLAT), split_rows(TREE)) == (2, 2)

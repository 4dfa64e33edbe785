"""Benchmark ``parse``: how fast the text of ``info mtree`` becomes a map.

The text is that of a real machine with 32 PCI devices whose BARs the firmware has programmed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.bench.laboratory import Laboratory
from harness.bench.model import Benchmark, Measure, Role, Sample, Subject
from harness.guest.local import LocalTransport
from harness.machine.command import Device, MachineSpec
from harness.machine.launch import Launch
from harness.machine.machine import Machine
from harness.parse.mtree import parse_memory_map, parse_memory_tree

DEVICES = 32
KINDS = ("nvme", "qemu-xhci", "virtio-net-pci", "virtio-rng-pci")
"""In turn; none has an I/O BAR, of which 32 would not fit behind root ports."""
OURS = "parser"
FLOOR = "lines and one regex"
_LEAST = 0.25
"""Seconds that one measurement of one text takes at least."""
_ROW = re.compile(r"^\s*([0-9a-f]+)-([0-9a-f]+) \(prio (-?\d+), (\S+)\): (.*)$")


@dataclass(frozen=True, slots=True)
class Texts:
    """What the monitor said of one machine."""

    flat: str
    tree: str


def parse(lab: Laboratory) -> Benchmark:
    """Return the benchmark."""
    place = lab.work / "machine-of-32"
    place.mkdir(exist_ok=True)
    texts = read_texts(lab, place)
    return on_texts(texts)


def on_texts(texts: Texts) -> Benchmark:
    """Return the benchmark for *texts*."""
    rows = texts.flat.count("\n")
    return Benchmark(
        name="parse",
        title=f"text of info mtree to a map, {DEVICES} PCI devices",
        measures=tuple(
            measure
            for name in ("flat map", "tree")
            for measure in (Measure(name), Measure(f"{name} rate", "MB/s", more_is_better=True))
        ),
        subjects=(
            Subject(OURS, Role.OURS, lambda _: sample(texts, parse_memory_map, parse_memory_tree)),
            Subject(FLOOR, Role.FLOOR, lambda _: sample(texts, split_rows, split_rows)),
        ),
        notes=(
            f"flat map: {len(texts.flat) / 1e6:.2f} MB, {rows} lines;"
            f" tree: {len(texts.tree) / 1e6:.2f} MB",
        ),
    )


def machine_of_32(has_device: Callable[[str], bool]) -> MachineSpec:
    """Return a machine with 32 PCI devices behind root ports, eight to a slot. Pure.

    :param has_device: says which drivers there are.
    """
    kinds = [kind for kind in KINDS if has_device(kind)]
    ports = tuple(
        Device(
            "pcie-root-port", f"port{n}", "pcie.0", f"0x{4 + n // 8:x}.{n % 8}",
            {"chassis": n + 1, "slot": n + 1, "multifunction": n % 8 == 0, "io-reserve": 0},
        )
        for n in range(DEVICES)
    )  # fmt: skip
    devices = tuple(_device(kinds[n % len(kinds)], n) for n in range(DEVICES))
    return MachineSpec(name="machine-of-32", accel="tcg", devices=(*ports, *devices))


def _device(kind: str, number: int) -> Device:
    options: dict[str, str | int | bool] = {}
    if kind == "nvme":
        options["serial"] = f"disk{number}"
    if kind == "virtio-net-pci":
        options["romfile"] = ""
    return Device(kind, f"device{number}", f"port{number}", "0x0", options)


def read_texts(lab: Laboratory, place: Path) -> Texts:
    """Start the machine, wait until its firmware has programmed every BAR, and read."""
    build = lab.parts.l0_qemu
    spec = machine_of_32(build.features.has_device)
    with Machine.launch(spec, Launch(LocalTransport(), build, place)) as machine:
        for number in range(DEVICES):
            machine.wait_until_mapped(f"device{number}")
        with machine.stopped():
            texts = Texts(machine.qmp.hmp("info mtree -f -o"), machine.qmp.hmp("info mtree -o"))
    for name, text in (("flat.txt", texts.flat), ("tree.txt", texts.tree)):
        (place / name).write_text(text, encoding="utf-8")
    return texts


def split_rows(text: str) -> int:
    """Read *text* as a script would: lines, and one regular expression; count the rows."""
    return sum(1 for line in text.splitlines() if _ROW.match(line) is not None)


def sample(texts: Texts, flat: Callable[[str], object], tree: Callable[[str], object]) -> Sample:
    """Measure both parsers once."""
    found: dict[str, float] = {}
    for name, text, parser in (("flat map", texts.flat, flat), ("tree", texts.tree, tree)):
        took = _mean(parser, text)
        found[name] = took
        found[f"{name} rate"] = len(os.fsencode(text)) / 1e6 / took
    return found


def _mean(parser: Callable[[str], object], text: str) -> float:
    count = 0
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < _LEAST or not count:
        parser(text)
        count += 1
    return took / count

"""A device written in Python that is plugged into a machine, seen from all sides.

What a guest's access met is counted twice: by trace events of QEMU, and at the device itself.
What is trapped arrives there as a message with place and width; what is mapped does not.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from harness.device.access_log import Access
from harness.device.config_space import CAP_MSIX
from harness.device.device import Device as ServedDevice
from harness.device.server import Served
from harness.host.virtual import VirtualHost
from harness.lab.accesses import counting
from harness.machine.command import Options
from harness.machine.machine import Machine
from harness.model.address import AddressRange
from harness.model.expectation import Expectation, Space
from harness.model.pci import Bar, Bdf, MsixCapability, PciFunction
from harness.model.trap import TrapClass, measured_class, predicted_class
from harness.model.version import QemuVersion
from harness.model.vfio.case import Transport, VfioCase
from harness.model.vfio.expectation import expect_vfio
from harness.model.vfio.mapping import RegionFacts
from harness.step import step

_LAST_BAR = 5


@dataclass(frozen=True, slots=True)
class Seat:
    """A device in Python and where it is plugged.

    :param port: id of the root port.
    :param addr: slot and function behind it: ``0``, ``0.1``.
    :param options: further properties of its ``-device``.
    """

    name: str
    device: ServedDevice
    port: str
    addr: str = "0"
    options: Options = field(default_factory=lambda: {"rombar": 0})


@dataclass(frozen=True, slots=True)
class Touched:
    """What was counted while the guest touched words of a BAR, each *count* times."""

    where: str
    count: int
    messages: Mapping[int, int]
    """By offset: accesses of it, of this width and kind, that reached the device as messages."""
    others: int
    """Messages about any other place of its BARs meanwhile."""
    events: Mapping[str, int]
    """Trace events of the QEMU that runs the guest, see `harness.lab.accesses`."""
    values: Mapping[int, int]
    """By offset: what the guest read last."""

    @property
    def served_by(self) -> TrapClass:
        """The path that served them, from the trace events of QEMU alone."""
        return measured_class(self.events, self.count * len(self.messages))

    def explain(self) -> str:
        """Return the counts in one line."""
        events = ", ".join(f"{name} {n}" for name, n in sorted(self.events.items())) or "none"
        messages = ", ".join(f"{offset:#x}: {n}" for offset, n in self.messages.items())
        return (
            f"{self.where}, {self.count} times each: messages to the device {messages}"
            f" (of other places {self.others}); trace events of QEMU: {events}"
        )


@dataclass
class Plugged:
    """A device in Python, in a machine: seen by its server, by QEMU, by the system inside."""

    seat: Seat
    served: Served
    stage: VirtualHost
    """The machine and its system."""
    qemu: QemuVersion
    """Of the machine."""

    @property
    def name(self) -> str:
        """Id of the device in the machine."""
        return self.seat.name

    @property
    def device(self) -> ServedDevice:
        """The device itself."""
        return self.seat.device

    @property
    def machine(self) -> Machine:
        """The QEMU that it is plugged into."""
        return self.stage.machine

    @cached_property
    def bdf(self) -> Bdf:
        """Where the system sees it."""
        return self.machine.function_of(self.name).bdf

    def function(self) -> PciFunction:
        """Return the function as the system sees it."""
        return self.stage.function(self.bdf)

    def window(self, bar: int) -> AddressRange:
        """Return where BAR *bar* decodes, as ``query-pci`` says."""
        return AddressRange(self.machine.bar_addresses(self.name)[bar], self._bar(bar).size)

    def expectation(self, declared: ServedDevice | None = None) -> Expectation:
        """Return the map that must be, from what the device declares; no map is read for it.

        :param declared: another device, to be held against this one.
        """
        return expect_vfio(
            VfioCase(
                function=declared_function(declared or self.device, self.bdf),
                kernel=self.stage.kernel,
                qemu=self.qemu,
                bar_addresses=self.machine.bar_addresses(self.name),
                kvm=self.machine.spec.accel.startswith("kvm"),
                regions=region_facts(declared or self.device),
                name=f"vfio-user:{self.served.socket}",
                device_id=self.name,
                transport=Transport.USER,
            )
        )

    def places(self, expected: Expectation, bar: int) -> Mapping[TrapClass, tuple[int, ...]]:
        """Return offsets in *every* page of BAR *bar*, by the class that *expected* predicts.

        Of each page its first, a middle and its last word, and the first word of each row.
        """
        window, space = self.window(bar), Space.MEMORY if self._in_memory(bar) else Space.PORTS
        rows = expected.rows_of(space)
        edges = {row.range.start - window.start for row in rows if row.range.start in window}
        steps = range(0, window.size, 0x800) if self._in_memory(bar) else range(0, window.size, 8)
        lasts = {offset - 4 for offset in (*steps[2::2], window.size)}
        found: dict[TrapClass, list[int]] = {}
        for offset in sorted({*steps, *lasts, *(edge + -edge % 4 for edge in edges)}):
            served = predicted_class(rows, window.start + offset)
            found.setdefault(served, []).append(offset)
        return {served: tuple(offsets) for served, offsets in found.items()}

    def set_command(self, value: int) -> None:
        """Write the COMMAND register: 1 ports, 2 memory, 4 bus master, 0x400 no INTx."""
        self.stage.probe("config", "write", str(self.bdf), 4, "--width", "2", "--value", value)

    def read(self, bar: int, *offsets: int, count: int = 100, width: int = 4) -> Touched:
        """Let the guest read words of BAR *bar*, each *count* times, and count what happens."""
        return self._touch("read", bar, offsets, count, width, [])

    def write(
        self, bar: int, offset: int, value: int, *, count: int = 100, width: int = 4
    ) -> Touched:
        """Let the guest write a word of BAR *bar* *count* times, and count what happens."""
        return self._touch("write", bar, (offset,), count, width, ["--value", hex(value)])

    def _touch(
        self,
        verb: Literal["read", "write"],
        bar: int,
        offsets: Sequence[int],
        count: int,
        width: int,
        more: Sequence[str],
    ) -> Touched:
        way = "mem" if self._in_memory(bar) else "port"
        path = self.stage.resource_file(self.bdf, bar)
        words = ["--width", str(width), "--count", str(count), *more]
        commands = [
            shlex.join([self.stage.probe_path, way, verb, path, hex(offset), *words])
            for offset in offsets
        ]
        where = f"{verb} {self.name} BAR {bar}+{', '.join(map(hex, offsets))}"
        before = self.served.accesses.counts
        with step("%s %d times", where, count), counting(self.machine) as counts:
            said = self.stage.run(" && ".join(commands)).stdout
        new = self.served.accesses.counts
        new.subtract(before)
        messages = {offset: new[Access(bar, offset, width, verb)] for offset in offsets}
        ours = sum(n for access, n in new.items() if access.region <= _LAST_BAR)
        last = re.findall(r"^(?:last|written)=(\w+)$", said, re.MULTILINE)
        return Touched(
            where=where,
            count=count,
            messages=messages,
            others=ours - sum(messages.values()),
            events=counts.events,
            values=dict(zip(offsets, (int(value, 16) for value in last), strict=True)),
        )

    def _bar(self, index: int) -> Bar:
        return next(bar.bar for bar in self.device.bars if bar.index == index)

    def _in_memory(self, bar: int) -> bool:
        return self._bar(bar).is_memory


def page_table(rows: Sequence[tuple[TrapClass, Touched]]) -> str:
    """Return predictions beside counts, a line for each place, for people (pure)."""
    lines = [f"{'offset':>8}  {'predicted':12}{'accesses':>9}{'messages':>10}  read"]
    places = [(at, served, touched) for served, touched in rows for at in touched.messages]
    for offset, served, touched in sorted(places, key=lambda place: place[0]):
        lines.append(
            f"{offset:#8x}  {served.value:12}{touched.count:9}{touched.messages[offset]:10}"
            f"  {touched.values[offset]:#010x}"
        )
    return "\n".join(lines) + "\n"


def declared_function(device: ServedDevice, bdf: Bdf) -> PciFunction:
    """Return what *device* says of itself, as the function at *bdf*; nobody is asked (pure)."""
    msix = device.msix
    return PciFunction(
        bdf=bdf,
        id=device.id,
        class_code=device.class_code,
        bars=tuple(bar.bar for bar in device.bars),
        msix=None if msix is None else MsixCapability(
            device.config.places[CAP_MSIX, False], msix.vectors,
            msix.table_bar, msix.table_offset, msix.pba_bar, msix.pba_offset,
        ),
        interrupt_pin=device.interrupt_pin,
        revision=device.revision,
    )  # fmt: skip


def region_facts(device: ServedDevice) -> dict[int, RegionFacts]:
    """Return what *device* says may be mapped of each BAR (pure)."""
    return {
        bar.index: RegionFacts(
            mappable=bar.is_direct,
            sparse=bar.direct if isinstance(bar.direct, tuple) and bar.direct else None,
        )
        for bar in device.bars
    }

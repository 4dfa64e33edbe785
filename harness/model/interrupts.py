"""Interrupt counts of a Linux system at one moment, and what came between two moments."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Interrupt:
    """One row of ``/proc/interrupts``."""

    label: str
    """IRQ number as text, or ``NMI``, ``LOC``, …."""
    counts: tuple[int, ...]
    """One per CPU column; ``ERR`` and ``MIS`` have a single total."""
    chip: str = ""
    """``IR-PCI-MSIX-0000:00:03.0``, ``IO-APIC``; empty for architecture rows."""
    hardware: int | None = None
    """Number inside the chip."""
    trigger: str = ""
    """``edge``, ``fasteoi``, ``Level`` as printed."""
    names: tuple[str, ...] = ()
    """Handlers; architecture rows have their description here."""

    @property
    def total(self) -> int:
        """Sum over the CPUs."""
        return sum(self.counts)

    @property
    def number(self) -> int | None:
        """The IRQ number; None for architecture rows."""
        return int(self.label) if self.label.isdecimal() else None

    @property
    def remapped(self) -> bool:
        """Say whether the chip's name says that an IOMMU remaps it (INT-14)."""
        return self.chip.startswith("IR-")


@dataclass(frozen=True, slots=True)
class InterruptTable:
    """All rows."""

    cpus: tuple[int, ...]
    """Numbers of the CPUs online, in column order."""
    rows: tuple[Interrupt, ...]

    def row(self, label: str | int) -> Interrupt:
        """Return the row of an IRQ number or of ``NMI``, ``LOC``, ….

        :raise KeyError: there is none.
        """
        for row in self.rows:
            if row.label == str(label):
                return row
        raise KeyError(f"no interrupt {label!r}")

    def named(self, name: str) -> Interrupt:
        """Return the row that the handler *name* uses (``nvme0q1``).

        :raise KeyError: none or several rows do; the text lists the names there are.
        """
        rows = [row for row in self.rows if row.number is not None and name in row.names]
        if len(rows) != 1:
            known = sorted(n for row in self.rows if row.number is not None for n in row.names)
            raise KeyError(f"{len(rows)} interrupts named {name!r}; there are {known}")
        return rows[0]

    def containing(self, text: str) -> tuple[Interrupt, ...]:
        """Return the rows with *text* in a handler's name or in the chip.

        ``vfio-msix[`` or ``0000:01:00.0`` finds the vectors of an assigned function.
        """
        return tuple(
            row
            for row in self.rows
            if row.number is not None and (text in row.chip or any(text in n for n in row.names))
        )

    def since(self, before: InterruptTable) -> InterruptTable:
        """Return what came after *before*, CPU by CPU.

        A row that is new, was given to another handler, or counts less than before (freed and
        requested again) counts from zero.
        """
        old = {row.label: row for row in before.rows}
        return replace(self, rows=tuple(self._less(row, old, before) for row in self.rows))

    def _less(
        self, row: Interrupt, old: dict[str, Interrupt], before: InterruptTable
    ) -> Interrupt:
        was = old.get(row.label)
        if was is None or (row.number is not None and was.names != row.names):
            return row
        if len(row.counts) == len(self.cpus) and len(was.counts) == len(before.cpus):
            by_cpu = dict(zip(before.cpus, was.counts, strict=True))
            counts = tuple(by_cpu.get(cpu, 0) for cpu in self.cpus)
        elif len(row.counts) == len(was.counts):
            counts = was.counts
        else:
            return row
        pairs = tuple(zip(row.counts, counts, strict=True))
        if any(now < then for now, then in pairs):
            return row
        return replace(row, counts=tuple(now - then for now, then in pairs))

"""Results of benchmarks as text: tables, demands and what was not measured."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.bench.model import Benchmark, Sample, Subject
from harness.bench.result import BenchmarkResult, Comparison, Demand, Figure, Mark, Report

_MARKS = {
    Mark.MET: ("met", "green"),
    Mark.MISSED: ("MISSED", "red"),
    Mark.NOT_MEASURED: ("not measured", "yellow"),
}
_STEPS = (("G", 1e9), ("M", 1e6), ("k", 1e3))


def quantity(value: float, unit: str) -> str:
    """Return *value* with three significant digits, in a unit that fits its size."""
    match unit:
        case "s" if abs(value) < 0.9995e-3:
            return f"{value * 1e6:.3g} µs"
        case "s" if abs(value) < 0.9995:
            return f"{value * 1e3:.3g} ms"
        case "B":
            return next(
                (f"{value / size:.3g} {prefix}B" for prefix, size in _STEPS if value >= size),
                f"{value:.0f} B",
            )
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}".rstrip()


def as_text(report: Report) -> list[RenderableType]:
    """Return everything there is to say, in the order in which a person reads it."""
    head = [f"{name}: {value}" for name, value in report.subjects.items()]
    computer = report.computer
    head.append(
        f"computer: {computer.cores} cores, {quantity(computer.memory, 'B')},"
        f" {computer.processor}, Linux {computer.kernel},"
        f" load {computer.load_before:.1f} before and {computer.load_after:.1f} after"
    )
    return [Text("\n".join(head)), *(result_text(one) for one in report.benchmarks)]


def result_text(result: BenchmarkResult) -> RenderableType:
    """Return one benchmark: a table a measure, demands, and the rest as lines."""
    parts: list[RenderableType] = [
        Text(f"\n{result.name}: {result.title}", style="bold"),
        Text(f"{result.rounds} rounds in {result.seconds:.0f} s", style="dim"),
    ]
    if result.figures:
        parts.append(_figures(result))
    parts += [Text(line, style=style) for line, style in _lines(result)]
    return Group(*parts)


def _figures(result: BenchmarkResult) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    for column in ("median", "quartiles", "n", "ours / it", "from … to"):
        table.add_column(column, justify="right", no_wrap=True)
    before = ""
    for figure in result.figures:
        if figure.measure != before:
            table.add_row(Text(figure.measure, style="bold"))
        ratio = _comparison(result, figure)
        table.add_row(
            f"  {figure.subject}",
            figure.role,
            quantity(figure.median, figure.unit),
            " … ".join(quantity(value, figure.unit) for value in figure.quartiles),
            str(len(figure.values)),
            f"{ratio.ratio:.3g}" if ratio else "",
            f"{ratio.low:.3g} … {ratio.high:.3g}" if ratio else "",
        )
        before = figure.measure
    return table


def _comparison(result: BenchmarkResult, figure: Figure) -> Comparison | None:
    return next(
        (
            one
            for one in result.comparisons
            if one.measure == figure.measure and one.over == figure.subject
        ),
        None,
    )


def _lines(result: BenchmarkResult) -> Iterator[tuple[str, str]]:
    for demand in result.demands:
        yield demand_line(demand)
    for one in result.not_measured:
        what = f"{one.subject}: " if one.subject else ""
        verb = "broke" if one.is_failure else "not measured"
        yield f"{what}{verb}: {one.why}", "red" if one.is_failure else "yellow"
    for note in result.notes:
        yield f"note: {note}", "dim"
    for picture in result.pictures:
        yield f"picture: {picture}", ""


def demand_line(demand: Demand) -> tuple[str, str]:
    """Return ``met asked: … measured: …`` and its style."""
    word, style = _MARKS[demand.mark]
    if demand.measured is None:
        return f"{word:<12} asked: {demand.asked} ({demand.why})", style
    doubt = "" if demand.is_sure else ", not for sure"
    sign = "≤" if demand.at_most else "≥"
    return (
        f"{word:<12} asked: {demand.asked}; measured: {demand.measured:.3g} {sign}"
        f" {demand.limit:g}{doubt} ({demand.low:.3g} … {demand.high:.3g})"
    ), style


class Progress:
    """Says on *console* what is measured now and what came out."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("") if console.is_terminal else None
        self._units: dict[str, str] = {}
        self._where = ""

    def began(self, benchmark: Benchmark, rounds: int) -> None:
        """Say which benchmark begins."""
        self._units = {measure.name: measure.unit for measure in benchmark.measures}
        self._say(f"{benchmark.name}: {benchmark.title}")
        if self._status is not None:
            self._status.start()

    def turn(self, subject: Subject, round_number: int, rounds: int) -> None:
        """Say what is measured now."""
        self._where = f"  round {round_number + 1}/{rounds}  {subject.name}"
        if self._status is not None:
            self._status.update(self._where.strip())

    def measured(self, subject: Subject, sample: Sample) -> None:
        """Say what came out."""
        said = ", ".join(
            f"{name} {quantity(value, self._units.get(name, ''))}"
            for name, value in sample.items()
        )
        self._say(f"{self._where}: {said}")

    def broke(self, subject: Subject, why: str) -> None:
        """Say that it broke."""
        self._say(f"{self._where}: broke: {why}")

    def stop(self) -> None:
        """Say nothing more."""
        if self._status is not None:
            self._status.stop()

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

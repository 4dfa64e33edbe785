"""A shape as text: what it is, where its BARs go, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from harness.model.address import AddressRange
from harness.model.expectation import row_text
from harness.shapes.observe import Observation
from harness.shapes.shape import (
    Action,
    Decode,
    Gate,
    Place,
    Power,
    Put,
    Rom,
    Shape,
    ShapeBar,
    SizeBars,
)

_WIDTH = 64
_PLACES = {
    Place.ROOT: "on the root bus",
    Place.PORT: "behind a PCI Express root port",
    Place.BRIDGE: "behind a PCI bridge",
}


def picture(observation: Observation) -> str:
    """Return all that is to be known of one observation, for a person."""
    lines = [*shape_lines(observation.shape), ""]
    lines += _verdict(observation)
    return "\n".join(lines) + "\n"


def shape_lines(shape: Shape) -> Iterator[str]:
    """Yield the lines that say what *shape* is."""
    kind = "PCI Express" if shape.express else "conventional"
    extras = [f"MSI of {shape.msi}"] if shape.msi else []
    extras += ["power management"] if shape.power else []
    extras += [f"ROM of {_size(shape.rom_size)}"] if shape.rom_size else []
    head = [f"device {shape.id}", f"class {shape.class_code:06x}", kind, _PLACES[shape.place]]
    yield ", ".join([*head, *extras])
    if shape.place is not Place.ROOT:
        gates = shape.gates
        for name, gate in (("low", gates.low), ("high", gates.high), ("ports", gates.ports)):
            if gate is not None:
                yield f"  the bridge passes on of {name}: {_range(gate)}"
    for bar in shape.bars:
        yield from _bar_lines(shape, bar)
    if shape.msix is not None:
        msix = shape.msix
        yield f"  MSI-X: {msix.vectors} vectors" + (
            ", may be mapped with the rest" if msix.mappable else ""
        )
        yield f"    table: BAR {msix.table_bar} {_range(msix.table)}"
        yield f"    PBA:   BAR {msix.pba_bar} {_range(msix.pba)}"
    for number, step in enumerate(shape.all_steps, 1):
        yield f"  step {number}: " + "; ".join(map(_action, step))


def _bar_lines(shape: Shape, bar: ShapeBar) -> Iterator[str]:
    prefetchable = ", prefetchable" if bar.prefetchable else ""
    how = "direct" if bar.direct is True else "not direct"
    if not isinstance(bar.direct, bool):
        how = "direct in " + ", ".join(map(_range, bar.direct)) if bar.direct else "direct nowhere"
    yield f"  BAR {bar.index}: {bar.kind.value}, {_size(bar.size)}{prefetchable}, {how}"
    if bar.size:
        yield f"    |{_strip(shape, bar)}|"


def _strip(shape: Shape, bar: ShapeBar) -> str:
    """One letter per part: ``=`` direct, ``.`` not, ``T`` table, ``P`` PBA, ``X`` both."""
    parts = min(_WIDTH, bar.size)
    edges = [bar.size * i // parts for i in range(parts + 1)]
    return "".join(
        _letter(shape, bar, AddressRange.of(start, end)) for start, end in pairwise(edges)
    )


def _letter(shape: Shape, bar: ShapeBar, part: AddressRange) -> str:
    msix = shape.msix
    table = msix is not None and msix.table_bar == bar.index and part.overlaps(msix.table)
    pba = msix is not None and msix.pba_bar == bar.index and part.overlaps(msix.pba)
    if table or pba:
        return "X" if table and pba else "T" if table else "P"
    direct = bar.direct if not isinstance(bar.direct, bool) else ()
    return "=" if bar.direct is True or any(part.overlaps(area) for area in direct) else "."


def _action(action: Action) -> str:
    match action:
        case Put():
            where = " above 4 GiB" if action.high else ""
            first = ", upper half first" if action.high_first else ""
            return f"BAR {action.bar} at +{action.at:#x}{where}{first}"
        case Decode():
            return f"memory {_on(action.memory)}, ports {_on(action.ports)}"
        case Gate():
            return f"bridge: memory {_on(action.memory)}, ports {_on(action.ports)}"
        case Rom():
            return f"ROM at +{action.at:#x}, {_on(action.enabled)}"
        case Power():
            return "power state D0" if action.on else "power state D3"
        case SizeBars():
            return "ask each BAR for its size"


def _verdict(observation: Observation) -> list[str]:
    if not observation.problem:
        if observation.refusal is not None:
            return [f"refused, as it must be: {observation.refusal}"]
        count = len(observation.views)
        return [f"agrees after {'its step' if count == 1 else f'each of {count} steps'}"]
    known = f" (known: {observation.known})" if observation.known else ""
    lines = [f"does not agree [{observation.rule}]{known}", observation.problem]
    wrong = next((view for view in observation.views if view.differences), None)
    if wrong is not None:
        lines += ["", f"expected after step {wrong.step + 1}:"]
        lines += [f"  {row_text(row.region())}  [{row.rule}]" for _, row in wrong.expectation.rows]
        lines += ["found:"]
        windows = wrong.expectation.windows
        for view in wrong.found:
            for name in ("memory", "I/O"):
                if name in view.names:
                    lines += [
                        f"  {row_text(row)}"
                        for row in view.regions
                        if row.name.startswith(wrong.case.prefix)
                        or any(w.space == name and w.range.overlaps(row.range) for w in windows)
                    ]
    return lines


def _on(is_on: bool) -> str:
    return "on" if is_on else "off"


def _range(area: AddressRange) -> str:
    return f"{area.start:#x}-{area.last:#x}"


def _size(size: int) -> str:
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"

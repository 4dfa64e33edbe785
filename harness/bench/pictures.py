"""Write the timeline of something as a picture and as a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from harness.bench.chrome_trace import chrome_trace
from harness.bench.picture import picture
from harness.bench.timeline import Span


def write_pictures(spans: Sequence[Span], directory: Path, name: str, *, title: str) -> list[Path]:
    """Write ``<name>.svg`` and ``<name>.trace.json``; return both."""
    svg, trace = directory / f"{name}.svg", directory / f"{name}.trace.json"
    svg.write_text(picture(spans, title=title), encoding="utf-8")
    trace.write_text(json.dumps(chrome_trace(spans)) + "\n", encoding="utf-8")
    return [svg, trace]

"""Spans as an SVG: a row each, its name at the left, its bar where its time was. Pure.

The picture has its own colours for light and dark pages and needs nothing but a viewer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

from harness.bench.show import quantity
from harness.bench.timeline import Span, condensed, uncovered

WIDTH = 1100
LABELS = 470
ROW = 20
ROWS = 60
_TOP = 64
_CHART = WIDTH - LABELS - 90
_INDENT = 14
_LETTER = 7.0
"""Width of a letter at 12 px, about; labels are cut to fit."""
_COLOURS = {
    # class: property, light, dark
    "text": ("fill", "#1a1a1a", "#e8e8e8"),
    ".faint": ("fill", "#6b6b6b", "#9a9a9a"),
    ".paper": ("fill", "#ffffff", "#16181c"),
    ".line": ("stroke", "#e3e3e3", "#33373d"),
    ".step": ("fill", "#3b74b8", "#6fa3e0"),
    ".test": ("fill", "#8aa9cf", "#3f5f86"),
    ".failed": ("fill", "#c0392b", "#e57368"),
}
_LIGHT = " ".join(f"{name} {{ {what}: {light} }}" for name, (what, light, _) in _COLOURS.items())
_DARK = " ".join(f"{name} {{ {what}: {dark} }}" for name, (what, _, dark) in _COLOURS.items())
# No CSS variables: viewers beside browsers do not know them.
_STYLE = f"""
text {{ font: 12px system-ui, sans-serif }} .title {{ font-size: 16px; font-weight: 600 }}
{_LIGHT}
@media (prefers-color-scheme: dark) {{ {_DARK} }}
"""


def picture(spans: Sequence[Span], *, title: str, rows: int = ROWS) -> str:
    """Return an SVG document of *spans*; the shortest are left out beyond *rows* rows."""
    title = _printable(title)
    shown, left_out = condensed(spans, rows=rows)
    began = min((span.began for span in spans), default=0.0)
    total = max((span.ended for span in spans), default=began) - began
    scale = _CHART / total if total > 0 else 0.0
    height = _TOP + ROW * len(shown) + 40
    body = [
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        _text(16, 28, title, "title"),
        *_axis(total, scale, height - 30),
        *(
            line
            for at, span in enumerate(shown)
            for line in _row(span, began, scale, _TOP + ROW * at, _lane(span, spans))
        ),
        _text(16, height - 10, _foot(spans, left_out, total), "faint"),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            f' width="{WIDTH}" height="{height}" role="img" aria-label={quoteattr(title)}>',
            f"<style>{_STYLE}</style>",
            *body,
            "</svg>",
            "",
        ]
    )


def _axis(total: float, scale: float, bottom: float) -> Iterator[str]:
    distance = tick_distance(total)
    for at in range(int(total / distance + 1e-9) + 1 if total > 0 else 0):
        x = LABELS + at * distance * scale
        yield f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 8}" y2="{bottom}"/>'
        yield _text(x, _TOP - 12, f"{at * distance:g} s", "faint", anchor="middle")


def tick_distance(total: float, *, ticks: int = 8) -> float:
    """Return 1, 2 or 5 times a power of ten: about *ticks* of them make *total* seconds."""
    if total <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(total / ticks))
    return next(
        (factor * power for factor in (1, 2, 5) if total / (factor * power) <= ticks), 10 * power
    )


def _row(span: Span, began: float, scale: float, y: float, lane: str) -> Iterator[str]:
    x = LABELS + (span.began - began) * scale
    width = max(span.seconds * scale, 1.0)
    indent = 16 + _INDENT * span.depth
    said = f"{lane}{span.text}"
    room = max(4, int((LABELS - indent - 8) / _LETTER))
    label = said if len(said) <= room else said[: room - 1] + "…"
    kind = "failed" if span.failed else "test" if span.test else "step"
    took = quantity(span.seconds, "s")
    more = f" ({span.failed})" if span.failed else ""
    yield f"<g><title>{escape(_printable(f'{said}: {took}{more}'))}</title>"
    yield _text(indent, y + 13, label)
    yield (
        f'<rect class="{kind}" x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{ROW - 7}"'
        ' rx="2"/>'
    )
    words = took + more
    if x + width + 5 + _LETTER * len(words) <= WIDTH:
        yield _text(x + width + 5, y + 13, words, "faint")
    else:
        yield _text(x - 5, y + 13, words, "faint", anchor="end")
    yield "</g>"


def _lane(span: Span, spans: Sequence[Span]) -> str:
    """Return what tells the thread and the worker, where there is more than one."""
    words = []
    if len({one.worker for one in spans}) > 1:
        words.append(span.worker)
    if span.thread != "MainThread":
        words.append(span.thread)
    return f"[{' '.join(words)}] " if words else ""


def _foot(spans: Sequence[Span], left_out: Sequence[Span], total: float) -> str:
    parts = [f"{quantity(total, 's')} in all"]
    if total > 0:
        parts.append(f"{quantity(uncovered(spans), 's')} outside of any step")
    if left_out:
        longest = max(span.seconds for span in left_out)
        parts.append(f"{len(left_out)} steps of {quantity(longest, 's')} or less not shown")
    return "; ".join(parts)


def _text(x: float, y: float, words: str, kind: str = "", *, anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}"{named} text-anchor="{anchor}">'
        f"{escape(_printable(words))}</text>"
    )


def _printable(words: str) -> str:
    """Return *words* without what XML 1.0 forbids (2.2, Char)."""
    return "".join(
        letter if letter in "\t\n" or (letter >= " " and letter.isprintable()) else "\ufffd"
        for letter in words
    )

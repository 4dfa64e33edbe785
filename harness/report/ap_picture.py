"""The table of adapters and domains as an SVG: whose each queue is. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from harness.model.ap.id import Apqn
from harness.model.ap.table import CONFLICT, FREE, HOST, ApTable

_CELL, _ROW, _LEFT, _TOP = 46, 28, 88, 84
_NARROWEST = 420
_FILLS = (
    "#7fb069", "#6fa3e0", "#e0a458", "#c98bb9", "#5fb3a8", "#d9795d", "#a3a847", "#8f8fd6",
)  # fmt: skip
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1a1a1a }
.title { font-size: 16px; font-weight: 600 } .faint { fill: #6b6b6b }
.paper, .free { fill: #ffffff } .host { fill: #d8dbe0 } .conflict { fill: #c0392b }
.cell { stroke: #9aa0a6 } .mark { font-weight: 600; fill: #111111 } .alarm { fill: #ffffff }
.absent { stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
text { fill: #e8e8e8 } .faint { fill: #9a9a9a } .paper { fill: #16181c } .free { fill: #16181c }
.host { fill: #4a4f57 } .mark { fill: #111111 } .plain { fill: #e8e8e8 } }
"""


def table_picture(table: ApTable, *, title: str) -> str:
    """Return an SVG document: a column for each adapter, a row for each domain."""
    legend = list(_legend(table))
    width = max(_NARROWEST, _LEFT + _CELL * len(table.adapters) + 24)
    height = _TOP + _ROW * len(table.domains) + 24 + 22 * len(legend)
    body = [
        f'<rect class="paper" width="{width}" height="{height}"/>',
        _text(16, 28, title, "title"),
        _text(_LEFT, _TOP - 28, "adapter", "faint"),
        _text(16, _TOP - 10, "domain", "faint"),
    ]
    for column, adapter in enumerate(table.adapters):
        x = _LEFT + _CELL * column + _CELL / 2
        body.append(_text(x, _TOP - 10, f"{adapter:02x}", anchor="middle"))
    for row, domain in enumerate(table.domains):
        y = _TOP + _ROW * row
        body.append(_text(16, y + 19, f"{domain:04x}"))
        for column, adapter in enumerate(table.adapters):
            body += _cell(table, Apqn(adapter, domain), _LEFT + _CELL * column, y)
    top = _TOP + _ROW * len(table.domains) + 18
    for number, (mark, text) in enumerate(legend):
        y = top + 22 * number
        body += _box(table, mark, 16, y, 22, 16, False)
        body.append(_text(46, y + 13, text))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}" role="img" aria-label={quoteattr(title)}>',
            f"<style>{_STYLE}</style>",
            *body,
            "</svg>",
            "",
        ]
    )


def _legend(table: ApTable) -> Iterator[tuple[str, str]]:
    for name in table.names:
        yield table.mark_of(name), name
    for mark, text in (
        (HOST, "drivers of the host"),
        (FREE, "left the host, no guest's"),
        (CONFLICT, "conflict: the kernel refuses it"),
    ):
        if table.has(mark):
            yield mark, text


def _cell(table: ApTable, apqn: Apqn, x: float, y: float) -> list[str]:
    owners = ", ".join(table.owners.get(apqn, ()))
    drawn = _box(table, table.mark(apqn), x, y, _CELL, _ROW, apqn in table.absent)
    return ["<g>", f"<title>{escape(f'{apqn} {owners}'.strip())}</title>", *drawn, "</g>"]


def _box(
    table: ApTable, mark: str, x: float, y: float, width: float, height: float, absent: bool
) -> list[str]:
    known = {HOST: "host", FREE: "free", CONFLICT: "conflict"}
    dashes = " absent" if absent else ""
    if mark in known:
        fill, text = (
            f'class="cell {known[mark]}{dashes}"',
            "alarm" if mark == CONFLICT else "plain",
        )
    else:
        marks = [table.mark_of(name) for name in table.names]
        colour = _FILLS[marks.index(mark) % len(_FILLS)]
        fill, text = f'class="cell{dashes}" style="fill: {colour}"', ""
    middle, base = x + width / 2, y + height / 2 + 4.5
    return [
        f'<rect {fill} x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>',
        _text(middle, base, mark, f"mark {text}".strip(), anchor="middle"),
    ]


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start") -> str:
    attributes = f' class="{kind}"' if kind else ""
    attributes += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:g}" y="{y:g}"{attributes}>{escape(text)}</text>'

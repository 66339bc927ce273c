"""Markup: the frame of a report, one HTML page readable by day and in the dark; Markdown tables."""

import html
from collections.abc import Sequence
from typing import Any

STYLE = """
:root { color-scheme: light dark; --page: #fafafa; --card: #fff; --line: #e4e4e4; --text: #222; --faint: #666; }
@media (prefers-color-scheme: dark) {
       :root { --page: #161616; --card: #202020; --line: #3a3a3a; --text: #ddd; --faint: #a0a0a0; }
       figure svg { filter: brightness(1.3); } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 0 auto;
       padding: 1rem; max-width: 70rem; }
h1 { font-size: 1.6rem; margin: .5rem 0 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p.about, figcaption, .small { color: var(--faint); font-size: .9rem; } p.about { margin: .2rem 0 1.2rem; }
.numbers, .grid { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); }
.grid { grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.numbers div, figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
       padding: .7rem .9rem; margin: 0; }
.numbers b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.numbers span { color: var(--faint); font-size: .85rem; }
figure svg { width: 100%; height: auto; display: block; } figure + figure.wide { margin-top: .8rem; }
svg text { fill: currentColor; }
video, img { width: 100%; border-radius: 4px; image-rendering: pixelated; display: block; }
.scroll { overflow-x: auto; } .scroll img { min-width: 36rem; }
table { border-collapse: collapse; font-size: .9rem; } td, th { padding: .15rem .9rem .15rem 0; text-align: left;
       vertical-align: top; overflow-wrap: anywhere; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
.wide td, .wide th { overflow-wrap: break-word; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem;
      white-space: pre-wrap; overflow-wrap: anywhere; } details { margin-top: 1rem; }
summary { cursor: pointer; font-weight: 600; }
"""


def page(title: str, body: list[str]) -> str:
    """The whole document. title: plain text; body: pieces of HTML."""
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>"
    )
    return "\n".join([head, "<body>", *body, "</body></html>", ""])


def text(value: Any) -> str:
    """Anything as HTML text; what no encoding can spell, as in the names of some folders, by its number."""
    return html.escape(str(value).encode(errors="backslashreplace").decode())


def figure(content: str, caption: str = "", kind: str = "") -> str:
    """A card. content, caption: HTML; kind: of style."""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="{kind}">{content}{below}</figure>'


def section(title: str, figures: list[str]) -> str:
    """A heading above cards side by side; nothing where there is none."""
    return f'<h2>{title}</h2><div class="grid">{"".join(figures)}</div>' if figures else ""


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """An HTML table. header: plain text; lines: HTML of each cell."""
    head = "".join(f"<th>{text(cell)}</th>" for cell in header)
    rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in lines)
    return figure(f'<div class="scroll"><table class="wide"><tr>{head}</tr>{rows}</table></div>')


def folded(title: str, values: dict[str, Any]) -> str:
    """A table of names and values that opens when asked; nothing where there is none."""
    if not values:
        return ""
    cells = "".join(f"<tr><td>{text(name)}</td><td>{text(value)}</td></tr>" for name, value in values.items())
    return f'<details><summary>{title}</summary><div class="scroll"><table>{cells}</table></div></details>'


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a Markdown table. header: names; rows: cells, written with str; all but the first are numbers."""
    texts = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(3, *(len(row[i]) for row in texts)) for i in range(len(header))]
    lines = [
        [row[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(row[1:], widths[1:], strict=True))] for row in texts
    ]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return [f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]]]

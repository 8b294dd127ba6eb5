"""Pieces of the self-contained pages that runs end with."""

from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
:root { color-scheme: light; --ink: #1d2126; --soft: #5b6470; --line: #e3e6ea; --accent: #d1495b; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: #f7f8fa; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1rem 4rem; }
main.wide { max-width: 1560px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem; } h2 { font-size: 1.1rem; margin: 0 0 .6rem; }
p { margin: .3rem 0 .7rem; } .soft, figcaption { color: var(--soft); font-size: .88rem; }
.lead { font-size: 1.12rem; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem 1.2rem;
  margin-top: 1.1rem; min-width: 0; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1.1rem; }
.grid section { margin-top: 0; } .grid { margin-top: 1.1rem; }
figure { margin: 0; } svg { display: block; width: 100%; height: auto; max-width: 820px; margin: 0 auto; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: right; padding: .35rem .7rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; color: var(--soft); }
tr.best td { font-weight: 650; } td small { color: var(--soft); font-weight: 400; }
.wrap { display: block; white-space: normal; max-width: 60ch; margin-left: auto; }
code { background: #f0f2f5; border-radius: 4px; padding: .05rem .3rem; overflow-wrap: anywhere; }
"""


def page(title: str, sections: Sequence[str], *, wide: bool = False) -> str:
    """A whole page of `sections`, which are HTML already; empty ones are left out. wide: for wide tables."""
    kind = " class=wide" if wide else ""
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main{kind}>\n{body}\n</main></body></html>\n"
    )


def figure(title: str, picture: str, caption: str) -> str:
    """A section with one picture, an SVG text; nothing without one."""
    if not picture:
        return ""
    return (
        f"<section><h2>{escape(title)}</h2><figure>{picture}"
        f"<figcaption>{escape(caption)}</figcaption></figure></section>"
    )


def estimate(about: Mapping[str, float], *, percent: bool = False) -> str:
    """A value and its interval."""
    form = ".0%" if percent else ".3f"
    low, high = format(about["low"], form), format(about["high"], form)
    return f"{format(about['value'], form)} <small>[{low}, {high}]</small>"


def table(head: Sequence[str], rows: Sequence[tuple[Sequence[str], bool]]) -> str:
    """head and cells are HTML already; a marked row stands out."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(
        f"<tr{' class=best' if marked else ''}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for cells, marked in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def grid(figures: Sequence[str]) -> str:
    """Figures side by side where there is room; empty ones are left out."""
    shown = [figure for figure in figures if figure]
    return f'<div class="grid">{"".join(shown)}</div>' if shown else ""

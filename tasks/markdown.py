"""Markdown as artifacts and reports are written in it: tables, pictures that carry their own bytes, and the page."""

import base64
import html
from collections.abc import Sequence

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328; }}
h1, h2 {{ line-height: 1.2; }} h2 {{ margin-top: 2.5rem; border-bottom: 1px solid #d1d9e0; padding-bottom: .3rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }}
th, td {{ border: 1px solid #d1d9e0; padding: .3rem .7rem; text-align: left; }} th {{ background: #f6f8fa; }}
img {{ max-width: 100%; height: auto; }} code {{ overflow-wrap: anywhere; }}
</style></head><body>
{body}
</body></html>
"""


def to_page(title: str, markdown: str) -> str:
    """Return a report's markdown as an HTML page that needs nothing beside itself."""
    return _PAGE.format(title=html.escape(title), body=to_html(markdown))


def to_html(markdown: str) -> str:
    """Return the HTML of a report's markdown; HTML inside of it is shown, not obeyed."""
    from markdown_it import MarkdownIt  # noqa: PLC0415 - only the last task of a run needs it

    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown))


class Marked(str):
    """Text that is markdown already: what is put into a table is escaped unless it is this."""

    __slots__ = ()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a markdown table; what is in it is escaped."""
    lines = [[_cell(cell) for cell in header], ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: object) -> str:
    return cell if isinstance(cell, Marked) else escape(str(cell))


def link(text: str, url: str) -> Marked:
    """Return a link as markdown; the address has no characters but those that an address may have."""
    return Marked(f"[{escape(text)}](<{url}>)")


def picture(title: str, png: bytes) -> str:
    """Return a picture as markdown that carries its own bytes."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"


def escape(text: str) -> str:
    """Return text that markdown shows as it is: names of classes and files come from outside."""
    for character in "\\`*_[]|<>":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")


def machines(instance_type: str, count: int) -> str:
    """Return how a person names machines."""
    return instance_type if count == 1 else f"{count} × {instance_type}"


def usd(amount: float | None) -> str:
    """Return dollars as a person reads them; four digits, since a demo costs less than a cent."""
    return "unknown" if amount is None else f"${amount:.4f}"


def short_number(value: str) -> str:
    """Return a hyperparameter as a person reads it: a number with four digits, a word without its quotes."""
    text = value.strip('"')
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text

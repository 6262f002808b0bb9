"""What the HTML pages are put together from: one file each that needs nothing else, no network, no script.

How a page looks is `page.css`; what stands on it is for the pages to say.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

STYLE_FILE = Path(__file__).with_name("page.css")


def write_whole(path: str | Path, page: str) -> Path:
    """Write a page so that nobody ever finds half of it; the folder of `path` must exist."""
    path = Path(path)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def whole_page(title: str, sections: Iterable[str]) -> str:
    """The page's whole HTML, from a title and sections that are HTML already."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{STYLE_FILE.read_text()}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def command(pieces: Sequence[str]) -> str:
    """A command to copy, a flag on each line."""
    text = " \\\n    ".join(pieces)
    return f"<pre>{escape(text)}</pre>\n"


def svg_figure(svg: str, caption: str) -> str:
    """A picture that was drawn as SVG text."""
    return _figure("svg+xml", svg.encode(), caption)


def png_figure(path: Path, caption: str) -> str:
    """A picture that lies in a PNG file."""
    return _figure("png", path.read_bytes(), caption)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), long: bool = False) -> str:
    """Cells are HTML already; `numbers` are the columns that hold numbers, a `long` last column may break anywhere."""

    def kinds() -> Iterator[str]:
        for index in range(len(titles)):
            last = "long" if long else ""
            yield "number" if index in numbers else "name" if index == 0 else last

    classes = list(kinds())
    head = "".join(f'<th class="{kind}">{title}</th>' for kind, title in zip(classes, titles, strict=True))
    body = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in zip(classes, row, strict=True)) + "</tr>\n"
        for row in rows
    )
    titled = f"<thead><tr>{head}</tr></thead>\n" if any(titles) else ""
    return f'<div class="scroll"><table>\n{titled}<tbody>\n{body}</tbody>\n</table></div>\n'


def _figure(kind: str, content: bytes, caption: str) -> str:
    picture = base64.b64encode(content).decode()
    return (
        f'<figure>\n<img src="data:image/{kind};base64,{picture}" alt="{escape(caption, quote=True)}">\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>\n"
    )

"""One HTML page from Markdown and PNGs, readable offline: no scripts, and pictures within the file."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# rules of Markdown by which a text could refer to another place
FOREIGN = ["link", "image", "autolink", "reference", "html_inline", "html_block"]
POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
)
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1300px;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:12px;display:block;overflow-x:auto}
th,td{border:1px solid #ccc;padding:3px 7px;text-align:left;vertical-align:top}
th{background:#f2f2f2}tr:nth-child(even){background:#fafafa}
img{max-width:100%}figcaption{font-size:13px;color:#555}figure{margin:1.5em 0}
h1{font-size:1.6em}h2{font-size:1.25em;border-bottom:1px solid #ddd}
"""


@dataclass(frozen=True)
class Picture:
    """A PNG file with its caption."""

    path: Path
    caption: str


def html_page(title: str, parts: Sequence[str | Picture]) -> str:
    """The page; text parts are Markdown (tables included), whatever HTML, links or pictures they hold is shown as text.

    Nothing in the page refers to anything outside it; its policy forbids a browser to load anything.
    """
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.disable(FOREIGN)
    body = []
    for part in parts:
        if isinstance(part, Picture):
            data = base64.b64encode(part.path.read_bytes()).decode("ascii")
            caption = html.escape(part.caption)
            body.append(
                f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption>'
                "</figure>"
            )
        else:
            body.append(markdown.render(part))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{POLICY}<title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )

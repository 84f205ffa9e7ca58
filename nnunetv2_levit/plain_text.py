"""Names as text: what users call models, cases and structures never becomes markup, a formula or mathematics."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

# CommonMark's and GitHub's markup; an underscore within a word is none, as in patient001_frame01
_MARKUP = re.compile(r"[\\`*{}\[\]<>#|&~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.")
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_FORMULA = ("=", "+", "-", "@")  # with which spreadsheets begin a formula (OWASP, CSV injection)
LONGEST_LABEL = 60


class Markup(str):
    """Markdown of our own making, which is not escaped."""


def one_line(text: str) -> str:
    """The text with line breaks and other control characters as single blanks."""
    return _BREAKS.sub(" ", text)


def markdown_text(text: str) -> str:
    """The text as Markdown that shows it, on one line, without links, pictures, HTML or other markup."""
    if isinstance(text, Markup):
        return text
    return _MARKUP.sub(lambda match: "\\" + match[0], one_line(text))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells are text and escaped, unless they are `Markup`."""
    lines = [list(map(markdown_text, head)), ["---"] * len(head), *(list(map(markdown_text, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _csv_cell(value: object) -> object:
    """None is an empty cell; a text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return "'" + text if text.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def csv_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV table of texts, numbers (in full precision) and None."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([_csv_cell(value) for value in row] for row in (head, *rows))
    return buffer.getvalue()


def figure_label(text: str) -> str:
    """The text as matplotlib draws it letter by letter: no mathematics, no hiding in legends, of bounded length."""
    text = one_line(text)
    if len(text) > LONGEST_LABEL:
        text = text[: LONGEST_LABEL - 1] + "…"
    if text.startswith("_"):  # which legends leave out
        text = "\u200b" + text
    return text.replace("$", r"\$")

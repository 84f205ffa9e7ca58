"""Names are data: no markup, no formula, no mathematics."""

import csv
import io

import pytest

from nnunetv2_levit.evaluation.html_page import html_page
from nnunetv2_levit.plain_text import Markup, csv_table, figure_label, markdown_table, markdown_text

HOSTILE = [
    "![y](http://evil/y.png)",
    "[y](http://evil)",
    "<img src=http://evil/y.png>",
    "<http://evil>",
    "[y]: http://evil",
    "a | b \\| c \\",
    "**b** _c_ `d` ~~e~~ &lt; &#60;",
    "a\n\n# b\n- c\n<script>",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_shows_names_as_they_are(name):
    from html.parser import HTMLParser

    class Texts(HTMLParser):
        def __init__(self):
            super().__init__()
            self.tags, self.texts = set(), []

        def handle_starttag(self, tag, attributes):
            self.tags.add(tag)
            self.tags |= {f"{key}={value}" for key, value in attributes if key in ("src", "href", "style")}

        def handle_data(self, data):
            self.texts.append(data)

    page = Texts()
    page.feed(html_page("title", [f"# {markdown_text(name)}\n", markdown_table(["name"], [[name], [Markup("**x**")]])]))
    shown = " ".join(name.split("\n\n")).replace("\n", " ")
    assert page.tags == {"html", "head", "meta", "title", "style", "body", "h1", "table", "thead", "tbody", "tr", "th",
                         "td", "strong"}  # fmt: skip
    assert "".join(page.texts).count(shown.strip()) == 2
    # even where a text was not escaped, the page refers to nothing
    page = Texts()
    page.feed(html_page("title", [name]))
    assert not {tag for tag in page.tags if tag in ("a", "img", "script") or "=" in tag}


def test_an_underscore_within_a_word_stays():
    assert markdown_text("patient001_frame01") == "patient001_frame01"
    assert markdown_text("_a_") == "\\_a\\_"


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-inf"])
def test_no_text_is_a_formula(text):
    (_, (cell, value)) = csv.reader(io.StringIO(csv_table(["a", "b"], [[text, -0.5]]), newline=""))
    assert cell == "'" + text.replace("\t", " ").replace("\r", " ")
    assert value == "-0.5"


def test_numbers_and_gaps_of_a_csv():
    assert csv_table(["a", "b"], [[-0.1, None], ["-0.5", "1e-3"]]) == "a,b\n-0.1,\n-0.5,1e-3\n"


@pytest.mark.parametrize("name", [r"$\frac{", "$x$", "_hidden", "a" * 500, "a\nb"])
def test_a_figure_shows_names_letter_by_letter(name, tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    axis = figure.add_subplot()
    axis.plot([0, 1], label=figure_label(name))
    axis.set_title(figure_label(name))
    (shown,) = axis.legend().get_texts()
    assert len(shown.get_text()) <= 70
    figure.savefig(tmp_path / "x.png")

"""Pages: alignment of tables, undefined values, and what hostile text becomes in each of them."""

import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from tests.simulation.compare.small_comparison import tiny_base
from tests.simulation.compare.test_results import shop_with_answers
from tests.simulation.run_folders import write_run

from fedperfit.protocol.system.files import read_json
from fedperfit.simulation.analyze import page as analyze_page
from fedperfit.simulation.analyze.findings import final_figures
from fedperfit.simulation.analyze.settings import AnalyzeSettings
from fedperfit.simulation.analyze.study import begin, run_study
from fedperfit.simulation.compare import page as compare_page
from fedperfit.simulation.compare.results import write_results
from fedperfit.simulation.report.html import Noted, Row, Table, estimate, render
from fedperfit.simulation.report.svg import svg
from fedperfit.simulation.run import report as run_page
from fedperfit.simulation.run.summary import write_metrics

HOSTILE = "<script>alert('x')</script>\"'&<img src=x onerror=y> $\\frac$"
TEMPLATES = resources.files("fedperfit.simulation.report") / "templates"
SOURCES = [
    path
    for folder in ("cloud", "edge", "protocol", "simulation")
    for path in Path(__file__).parents[3].joinpath(folder).rglob("*.py")
]


class Reader(HTMLParser):
    """Tags, attributes and texts of a page, as a browser sees them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def assert_harmless(html: str, least: int) -> None:
    """Hostile text is text: shown at least `least` times, whole, and never a tag or an attribute."""
    reader = Reader(html)
    assert not reader.tags & {"script", "img"}
    assert "onerror" not in reader.attributes
    assert sum(text.count(HOSTILE) for text in reader.texts) >= least


def hostile(value: Any, spared: frozenset[str] = frozenset()) -> Any:
    """`value` with hostile text in place of every text, but for those spared and those under a spared key."""
    if isinstance(value, dict):
        return {key: part if key in spared else hostile(part, spared) for key, part in value.items()}
    if isinstance(value, list):
        return [hostile(part, spared) for part in value]
    return HOSTILE if isinstance(value, str) else value


def hostile_settings(settings: Any) -> Any:
    """Settings that no check would pass, with hostile text in all of their texts."""
    flat = hostile(settings.to_flat())
    return SimpleNamespace(
        **{key.replace("-", "_"): value for key, value in flat.items()}, to_flat=lambda: flat
    )


def test_a_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "LaMP_2M")
    write_metrics(folder)
    summary = hostile(read_json(folder / "metrics.json"), frozenset({"main"}))
    for report in summary["rounds"]:
        report["dropped"] = {HOSTILE: HOSTILE}
    summary["users"] = {f"{HOSTILE}{name}": scores for name, scores in summary["users"].items()}
    summary["communication"]["alternatives"] = {HOSTILE: 12}
    summary["communication"]["phases"][HOSTILE] = summary["communication"]["rounds"][0]
    summary["places"] = {"settings": {HOSTILE: HOSTILE}, "clients": 1, "seconds": 1.0, "relevance": [0.5]}
    settings = hostile(read_json(folder / "settings.json")) | {HOSTILE: HOSTILE}
    texts = sum(isinstance(value, str) for value in settings.values())
    assert_harmless(run_page.page(summary, settings), least=texts + 12)


def test_a_comparison(tmp_path: Path) -> None:
    state = shop_with_answers(tmp_path / "run", "LaMP_2M")
    about = hostile(
        write_results(state)["tasks"]["LaMP_2M"],
        frozenset({"main", "family", "method", "history", "collective"}),
    )
    families = {row["method"]: row["method"] + HOSTILE for row in about["rows"]}
    for row in about["rows"]:
        row["method"] = families[row["method"]]
    for kind in ("history", "collective"):
        about[kind] = {families[name]: points for name, points in about[kind].items()}
    about["search"] = {HOSTILE: {"draws": 1, "score": 0.5, "seconds": 1.0, "chosen": {HOSTILE: HOSTILE}}}
    compare_page.write_page(tmp_path, {"tasks": {HOSTILE: about}}, hostile_settings(state.settings))
    assert_harmless((tmp_path / "report.html").read_text(), least=2 * len(about["rows"]) + 20)


def test_a_study(tmp_path: Path) -> None:
    settings = AnalyzeSettings(
        tasks=["LaMP_2M", "LaMP_4"], base_model=tiny_base(), data="world", device="cpu", users=4, queries=1
    )
    begin(tmp_path / "run", settings)
    summary = run_study(tmp_path / "run", lambda event: None)
    labelled, worded = summary["tasks"].values()
    figures, plots = final_figures(summary), analyze_page.pictures(tmp_path / "run")
    assert figures["LaMP_2M/findings/collective-shift/difference/low"] <= 1
    assert not [name for name in figures if set(labelled["people"]["names"]) & set(name.split("/"))]
    assert {"LaMP_2M Spectrum", "LaMP_4 Rank by layer"} <= set(plots)
    assert not [title for title in plots if "Users" in title or "Coordinates" in title]
    labelled["people"]["labels"] = [HOSTILE, HOSTILE, *labelled["people"]["labels"][2:]]
    tasks = {HOSTILE: labelled, f"{HOSTILE} 2": worded}
    analyze_page.write_page(tmp_path, {"tasks": tasks}, hostile_settings(settings))
    assert_harmless((tmp_path / "report.html").read_text(), least=14)


def test_the_alternative_text_of_a_picture() -> None:
    picture = svg(HOSTILE, lambda axes: axes.set_title(HOSTILE))
    assert isinstance(picture, Markup)
    assert_harmless(str(picture), least=1)
    assert not Reader(str(picture)).attributes & {"onerror", "src"}


def test_nothing_but_our_pictures_is_taken_for_markup() -> None:
    for template in TEMPLATES.iterdir():
        text = template.read_text()
        assert not re.search(r"\|\s*safe\b|autoescape|Markup|forceescape", text), template.name
        assert not re.search(r"https?:|@import|url\(|src=|href=(?!\"/report\")", text), template.name
    marking = [path.name for path in SOURCES if re.search(r"\bMarkup\(", path.read_text())]
    assert marking == ["svg.py"]
    assert not [path for path in SOURCES if "from html import" in path.read_text()]


def test_what_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="task"):
        render("run.html", title="a run")


def test_numbers_are_aligned_on_their_decimals() -> None:
    table = Table(
        ["", "value", "share", "word"],
        [
            Row(["a", Noted("12.5", "[12, 13]"), "3", "holds"]),
            Row(["b", Noted("-0.25", "", "*"), "1,000", "1.0 or so"]),
            Row(["c", "7", "", ""], best=True),
        ],
    )
    assert table.columns == [("", 1), ("value", 2), ("share", 1), ("word", 1)]
    first, second, third = table.aligned
    assert first.cells == ["a", Noted("12.5\u2007", "[12, 13]"), "3", "holds"]
    assert second.cells == ["b", Noted("-0.25", "", "*"), "1,000", "1.0 or so"]
    assert third.cells == ["c", "7\u2008\u2007\u2007", "", ""]
    assert (table.marked(1), table.marked(2)) == (True, False)


def test_a_number_without_an_interval_stands_under_those_that_have_one() -> None:
    estimated = estimate({"value": 0.5, "low": 0.4, "high": 0.6})
    rows = [Row(["stages/base/accuracy", estimated]), Row(["bytes/payload-up", "24,834"])]
    unused = dict.fromkeys(
        ("refresh", "report", "work", "phases", "losses", "rounds", "trials", "latest", "settings")
    )
    words = dict.fromkeys(("title", "name", "headline", "subline"), "")
    html = render("watch.html", **unused, **words, figures=Table(["figure", "value"], rows))
    assert "<td>bytes/<wbr>payload-up</td>" in html, "which a narrow screen may break"
    assert re.search(r'<td>24,834\s*</td>\s*<td class="note"></td>', html)


def test_both_looks_of_the_owners_page_are_those_of_the_reports() -> None:
    """The colours stand at the top of both stylesheets, light and dark."""
    ours = (TEMPLATES / "style.css").read_text()
    owners = (resources.files("fedperfit.edge.web") / "page.css").read_text()
    colours = re.compile(r":root \{(.*?)\}", re.S)
    assert len(colours.findall(ours)) == 2
    assert colours.findall(ours) == colours.findall(owners)


def test_bytes_are_written_out_on_a_logarithmic_axis(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "LaMP_2M")
    write_metrics(folder)
    html = run_page.write_report(folder).read_text()
    assert "100,000</text>" in html
    assert "mathdefault" not in html
    assert np.all(["$" not in text for text in Reader(html).texts])


def test_no_figure_is_a_zero_with_a_minus():
    about = {"value": -0.0001, "low": -0.2, "high": -1e-9}
    assert estimate(about, ".0%").value == "0%"
    assert estimate(about, "+.3f").note == "[-0.200, +0.000]"


def test_one_of_anything_is_counted_as_one() -> None:
    counts = re.compile(
        r"\{\{ ?[a-z.]+ ?\}\} [a-z ]*(?:users|people|clients|questions|methods|draws|rounds|items)\b"
    )
    for template in TEMPLATES.iterdir():
        assert not counts.search(template.read_text()), template.name
    table = Table(["a"], [Row(["b"])])
    task = {"name": "T", "users": 1, "questions": 1, "others": 1, "finding": "", "figures": []}
    html = render(
        "communication.html",
        **{"title": "", "base_model": "", "data": "", "sockets": "", "settings": {}},
        tasks=[{**task, "table": table, "searches": table}],
    )
    assert "1 person with 1 question, 1 client." in html

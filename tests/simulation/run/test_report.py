import re
from html.parser import HTMLParser

import pytest
from rich.console import Console
from tests.simulation.run_folders import write_run

from fedperfit.protocol.messages.ledger import Entry, Ledger
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.simulation.report.bootstrap import doubt
from fedperfit.simulation.run.report import headline, summary_table, write_report
from fedperfit.simulation.run.summary import write_metrics


def report_of(folder) -> str:
    write_metrics(folder)
    return write_report(folder).read_text()


@pytest.mark.parametrize("task", ["LaMP_2M", "LaMP_3", "LaMP_4"])
def test_every_figure_of_the_tables_is_on_the_page(tmp_path, task):
    html = report_of(write_run(tmp_path, task))
    summary = read_json(tmp_path / "metrics.json")
    for stage in summary["stages"].values():
        for about in stage["metrics"].values():
            interval = f"[{about['low']:.3f}, {about['high']:.3f}]"
            assert f'<td>{about["value"]:.3f}</td><td class="note">{interval}</td>' in html
    for group in ("unknown", "bayes"):
        for about in summary["bounds"]["targets"][group].values():
            assert f"<td>{about['value']:.3f}</td>" in html
    for point in summary["history"]:
        assert f"<td>{point['size']}</td>" in html
    for one in summary["communication"]["rounds"]:
        assert f"{one['up']['message']:,}" in html
    assert "W contains NaN" in html
    assert html.count("<svg") == 6


def test_what_two_users_show_is_not_called_chance_beside_an_interval_without_zero():
    few = {"value": 0.3, "low": 0.2, "high": 0.4, "significant": False}
    assert doubt(few) == "too few users to tell"
    assert doubt(few | {"low": -0.2}) == "within chance"
    assert doubt(few | {"significant": True}) == ""


def test_the_limit_of_cold_start_is_drawn_and_told(tmp_path):
    folder = write_run(tmp_path, "LaMP_2M")
    assert "best with these items" not in report_of(folder)
    bounds = read_json(folder / "bounds.json")
    golds = {user: [answer["gold"] for answer in answers] for user, answers in bounds.items()}
    write_json(folder / "limit.json", {user: {"0": gold, "4": gold} for user, gold in golds.items()})
    html = report_of(folder)
    assert html.count("best with these items (Bayes)") >= 2
    assert "share of the way there" in html


def test_under_a_prior_the_page_tells_the_numbers_of_people_with_few_and_with_many_items(tmp_path):
    folder = write_run(tmp_path, "LaMP_2M")
    assert "A personal shift has 3,080 parameters;" in report_of(folder)
    prior = {"update-basis": "public", "personal-basis": "update", "people-prior": True, "prior-items": 9}
    plain = read_json(folder / "settings.json")
    for numbers, told in ((0, 272), (64, 64)):
        write_json(folder / "settings.json", plain | prior | {"personal-numbers": numbers})
        html = report_of(folder)
        assert html.count(f"{told} parameters with at most 9 items, up to 3,080 with more;") == 2


def test_in_a_basis_the_page_speaks_of_an_update_and_not_of_a_mean_of_both_ways(tmp_path):
    folder = write_run(tmp_path, "LaMP_2M")
    assert "One packed collective shift is 24,832 B" in report_of(folder)
    entries = [
        Entry("train", 1, "others-0", "down", 1_096, 1_500, {"coordinates": 1_096}),
        Entry("train", 1, "others-0", "up", 40, 240, {"update": 40}),
    ]
    (folder / "ledger" / "train.jsonl").unlink()
    Ledger(folder / "ledger" / "train.jsonl").add(entries)
    html = report_of(folder)
    assert "One update is 40 B" in html
    assert "down 1,500 B each; up 240 B each" in html
    assert "<b>coordinates</b>: the collective shift in that basis" in html


def test_the_page_is_self_contained_and_well_formed(tmp_path):
    html = report_of(write_run(tmp_path, "LaMP_2M"))
    assert not re.search(r'(?:src|href)="(?!#)', html)
    assert "<script" not in html
    assert "@import" not in html
    opened: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in {"meta", "path", "use", "rect", "image", "br", "stop"}:
                opened.append(tag)

        def handle_startendtag(self, tag, attrs):
            pass

        def handle_endtag(self, tag):
            if tag not in {"path", "use", "rect", "image", "stop"}:
                assert opened.pop() == tag

    Balance().feed(html)
    assert opened == []


def test_sections_without_data_are_left_out(tmp_path):
    folder = write_run(tmp_path, "LaMP_4")
    for path in [*(folder / "results").glob("history*"), *(folder / "results").glob("collective*")]:
        path.unlink()
    (folder / "bounds.json").unlink()
    (folder / "results" / "evaluate-personal.json").unlink()
    html = report_of(folder)
    assert "Cold start" not in html
    assert "Bayes" not in html
    assert "has not reached the personal shift" in html


def test_same_folder_same_bytes(tmp_path):
    folder = write_run(tmp_path, "LaMP_3")
    assert report_of(folder) == report_of(folder)


@pytest.mark.parametrize(
    ("value", "significant", "lower", "said"),
    [
        (0.2, True, False, "improved"),
        (-0.2, True, False, "worsened"),
        (-0.2, True, True, "improved"),
        (0.2, False, False, "no difference beyond chance"),
    ],
)
def test_the_headline_says_what_the_interval_allows(value, significant, lower, said):
    stages = {stage: {"users": 6, "metrics": {"m": {"value": 0.5}}} for stage in ("collective", "personal")}
    difference = {"m": {"value": value, "significant": significant}}
    summary = {"main": "m", "lower-is-better": lower, "stages": stages}
    assert said in headline(summary | {"differences": {"personal-collective": difference}})
    stages["personal"]["users"] = 1
    few = headline(summary | {"differences": {"personal-collective": difference}})
    assert few == "Too few to tell a difference from chance, 1 user: m from 0.500 to 0.500"


def test_the_closing_table_has_stages_and_bounds(tmp_path):
    report_of(write_run(tmp_path, "LaMP_2M"))
    console = Console(width=140, record=True)
    console.print(summary_table(read_json(tmp_path / "metrics.json")))
    text = console.export_text()
    for name in ("base model alone", "collective shift", "collective + personal", "Bayes-optimal"):
        assert name in text
    assert "0 B of personal shifts were found in the 6 replies (1.5 kB)" in " ".join(text.split())


@pytest.mark.parametrize(
    ("leaked", "said"),
    [((0, 48), "48 B of personal shifts"), ((), "no reply of anybody who had one was searched")],
)
def test_the_report_says_what_was_found_of_personal_shifts(tmp_path, leaked, said):
    folder = write_run(tmp_path, "LaMP_2M", leaked=leaked)
    report_of(folder)
    assert said in (folder / "report.html").read_text(encoding="utf-8")

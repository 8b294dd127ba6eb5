"""Tables of the benchmarks' page are those of the records, and records say where they come from."""

import json
import re
from pathlib import Path

import pytest
from tools.benchmark_tables import PAGE, RESULTS, ROOT, filled, table

RECORD = {
    "origin": {
        "commit": "0123456789abcdef",
        "started": "2026-11-26T09:40:00+00:00",
        "machine": {"processor": "a processor", "cores": 2},
        "versions": {"torch": "2.13.0", "fedperfit": "0.2.0"},
        "note": "",
    },
    "settings": {"threads": 1, "machine": {"device": "a device"}},
    "training": [
        {
            "task": "LaMP_4",
            "positions": "l7",
            "contenders": {
                "engine": {"seconds_per_user": 0.5},
                "plain": {"seconds_per_user": 1.25, "speed_up": 2.5, "share_of_bound": 0.9},
                "pyreft": {"error": "pyreft cannot be imported"},
            },
        }
    ],
}


def test_the_page_has_the_tables_of_the_records():
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    records = {path.stem for path in (ROOT / RESULTS).glob("*.json")}
    assert set(re.findall(r"<!-- benchmark:([\w-]+) -->", page)) == records, "every record has its place"
    assert filled(page, ROOT / RESULTS) == page, "run python -m tools.benchmark_tables"


@pytest.mark.parametrize("path", sorted((ROOT / RESULTS).glob("*.json")), ids=lambda path: path.stem)
def test_every_record_says_where_it_comes_from(path: Path):
    origin = json.loads(path.read_text(encoding="utf-8"))["origin"]
    commit, _, changes = origin["commit"].partition("+")
    assert len(commit) == 40
    assert not changes or origin["note"], "measured from a checkout without changes, or a note says which"
    assert origin["machine"]["processor"]
    assert {"python", "torch", "transformers"} <= set(origin["versions"])


def test_a_place_is_filled_and_filled_again(tmp_path: Path):
    (tmp_path / "small.json").write_text(json.dumps(RECORD))
    page = "before\n<!-- benchmark:small -->\nold\n<!-- /benchmark -->\nafter\n"
    once = filled(page, tmp_path)
    assert "| LaMP_4 l7 | 0.50 | 1.25 | not measured | 2.5x, 90 % |" in once
    assert "commit `0123456789ab`, 2026-11-26; a device; a processor, 1 of 2 cores; torch 2.13.0." in once
    assert "old" not in once
    assert filled(once, tmp_path) == once
    with pytest.raises(FileNotFoundError):
        filled(page.replace("small", "large"), tmp_path)


def test_a_row_has_a_cell_per_contender():
    heading, rule, row = table(RECORD).splitlines()
    assert heading.count("|") == rule.count("|") == row.count("|") == 6

"""Every guard that the threat model names is backed by tests that exist, each by its name."""

import re
from pathlib import Path

import pytest
from tests.docs.blocks import DOCS, ROOT

PAGE = (DOCS / "threat-model.md").read_text(encoding="utf-8")
_CELL = re.compile(r"`(tests/[^`]+\.py)` \(((?:`\w+`(?:, )?)+)\)")


def guards() -> list[list[str]]:
    """Rows of the table of guards: what holds, where, and by which tests."""
    table = PAGE.split("## What enforces it\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] != "guard"]


@pytest.mark.parametrize("row", guards(), ids=lambda row: re.sub(r"\W+", "-", row[0])[:60])
def test_a_guard_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 3
    named = _CELL.findall(row[2])
    assert named, "no test is named"
    assert _CELL.sub("", row[2]).strip(", ") == "", "a file without the names of its tests"
    for path, names in named:
        defined = set(re.findall(r"^(?:async )?def (test_\w+)", Path(ROOT / path).read_text(), re.MULTILINE))
        assert set(re.findall(r"`(\w+)`", names)) <= defined, path


def test_there_are_guards() -> None:
    assert len(guards()) > 40


def test_what_is_attacked_without_the_guard_too_is_on_the_page() -> None:
    attacks = {path.name for path in (ROOT / "tests" / "attacks").glob("test_*.py")}
    assert {name for name in attacks if f"tests/attacks/{name}" not in PAGE} == set()

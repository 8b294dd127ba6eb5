"""What `pytest -m "not slow"` leaves out is what took long, and is there."""

from pathlib import Path

from tests.conftest import LONGEST
from tools.slow_tests import SLOW, slow_tests

TESTS = Path(__file__).parents[1]


def test_all_cases_of_a_function_count_together() -> None:
    cases = [
        ("tests.edge.web.test_page", "test_a_page[dark]", 0.6),
        ("tests.edge.web.test_page", "test_a_page[light]", 0.6),
        ("tests.edge.web.test_page", "test_another", 0.9),
        ("tests.test_help", "test_help", 2.0),
    ]
    assert slow_tests(cases, seconds=1.0) == ["edge/web/test_page.py::test_a_page", "test_help.py::test_help"]


def test_every_slow_test_is_there() -> None:
    for line in SLOW.read_text(encoding="utf-8").splitlines():
        file, _, name = line.partition("::")
        assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8"), line


def test_every_file_that_is_begun_first_is_there() -> None:
    assert [name for name in LONGEST if not (TESTS / name).is_file()] == []

"""Tests that take long, for `pytest -m "not slow"`: `python -m tools.slow_tests REPORT.xml`.

The report is that of a run of all tests on an idle machine, `pytest --junitxml=REPORT.xml`. Written to
`tests/slow.txt` is one line for each test function whose cases took more than half a second in all.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

SLOW = Path(__file__).parents[1] / "tests" / "slow.txt"
SECONDS = 0.5
"""Time that the cases of a fast test take at most."""


def slow_tests(cases: Iterable[tuple[str, str, float]], seconds: float = SECONDS) -> list[str]:
    """Name the test functions that take long, sorted.

    Args:
        cases: Module, name and seconds of each case.
        seconds: Time that all cases of a fast function take at most.

    Returns:
        Names such as `edge/web/test_page.py::test_a_page`.
    """
    total: defaultdict[str, float] = defaultdict(float)
    for module, name, took in cases:
        total[f"{module.removeprefix('tests.').replace('.', '/')}.py::{name.partition('[')[0]}"] += took
    return sorted(name for name, took in total.items() if took > seconds)


def main() -> None:
    """Read a report, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="Report of a run of all tests.")
    cases = ElementTree.parse(parser.parse_args().report).iter("testcase")
    told = [(case.attrib["classname"], case.attrib["name"], float(case.attrib["time"])) for case in cases]
    SLOW.write_text("".join(f"{name}\n" for name in slow_tests(told)), encoding="utf-8")


if __name__ == "__main__":
    main()

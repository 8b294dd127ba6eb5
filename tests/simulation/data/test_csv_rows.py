"""Rows of a CSV file beside a slow reading of them, and the work that broken ones cost."""

import csv
import io
import random

import pytest

from fedperfit.protocol.system.errors import MalformedFileError
from fedperfit.simulation.data import csv_rows
from fedperfit.simulation.data.csv_rows import CsvRows


def slowly(lines):
    """Rows by the number of the line each begins at, None where a quote is never closed."""
    line = 0
    while line < len(lines):
        reader = csv.reader([*lines[line:], ""])
        row, end = next(reader), line + reader.line_num
        if end > len(lines) or not well_formed(lines[line:end]):
            row, end = None, line + 1
        yield line + 1, row
        line = end


def well_formed(lines):
    try:
        return list(csv.reader(lines, strict=True))
    except csv.Error:
        return False


def test_rows_are_those_of_a_slow_reading():
    draw = random.Random(0)
    for _ in range(3000):
        text = "".join(draw.choice('"",,x\n\r\n') for _ in range(draw.randrange(40)))
        lines = [*io.StringIO(text, newline="")]
        rows = [
            (number, None if isinstance(row, MalformedFileError) else row)
            for number, row in CsvRows(lines, ",").after(0)
        ]
        assert rows == list(slowly(lines)), text


@pytest.mark.parametrize("line", ['c,"open\n', 'a"b,"c\n', 'a","b\n', '""y","t\n', 'a,"b\nc"\n'])
def test_quotes_that_are_never_closed_cost_a_few_looks_at_each_line(monkeypatch, line):
    taken = 0

    def counted(lines, **form):
        nonlocal taken
        taken += len(lines)
        return csv_reader(lines, **form)

    csv_reader = csv.reader
    monkeypatch.setattr(csv_rows.csv, "reader", counted)
    lines = [*io.StringIO(line * 1000)]
    assert len(list(CsvRows(lines, ",").after(0))) == 1000
    assert taken <= 8 * len(lines)


def test_a_last_line_that_was_cut_off_in_a_cell_is_no_row():
    (_, whole), (number, cut) = CsvRows(['a,"b"\n', 'c,"d'], ",").after(0)
    assert whole == ["a", "b"]
    assert (number, str(cut)) == (2, "broken CSV (a quote that is never closed)")


def test_a_quote_within_a_quoted_cell_costs_its_line():
    """Python's reader would drop some of the quotes and keep others."""
    lines = ['a,"he said "hi" to me"\n', '6" tall,b\n', 'c,"he said ""hi"" to me"\n']
    (number, broken), *others = CsvRows(lines, ",").after(0)
    assert (number, str(broken)) == (1, "broken CSV (',' expected after '\"')")
    assert others == [(2, ['6" tall', "b"]), (3, ["c", 'he said "hi" to me'])]


def test_a_cell_that_is_too_long_costs_its_row():
    before = csv.field_size_limit(12)
    try:
        rows = list(CsvRows(['a,"long, but\n', 'closed"\n', "c,d\n"], ",").after(0))
    finally:
        csv.field_size_limit(before)
    assert [number for number, _ in rows] == [1, 3]
    assert "field larger" in str(rows[0][1])

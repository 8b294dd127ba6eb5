"""Records of tables as people have them: what is wrong with one costs that one, and is told by its line."""

import gzip
import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from fedperfit.protocol.system.errors import InputError, MalformedFileError
from fedperfit.simulation.data.own_people import _moments
from fedperfit.simulation.data.table_files import records


def told(path: Path, columns: list[str]) -> list[tuple[int, object]]:
    _, found = records(path, columns, [].append)
    return [(n, str(row) if isinstance(row, InputError) else row) for n, row in found]


def test_a_quote_that_is_never_closed_costs_its_own_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('who,text\na,one\nb,"two\nlines"\nc,"open\nd,four\ne,"five"\n')
    found = told(path, ["who", "text"])
    assert [n for n, _ in found] == [2, 3, 5, 6, 7], "the lines at which records begin"
    assert [row["who"] for _, row in found if isinstance(row, dict)] == ["a", "b", "d", "e"]
    assert found[1][1] == {"who": "b", "text": "two\nlines"}
    assert "never closed" in found[2][1]


def test_a_line_of_too_few_or_too_many_cells_costs_itself(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("who,text\na\nb,two,more\n\nc,three\n")
    found = told(path, ["who", "text"])
    assert [n for n, _ in found] == [2, 3, 5]
    assert found[2][1] == {"who": "c", "text": "three"}


def test_a_header_that_is_too_long_is_one_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('who,"' + "x" * (1 << 24) + "y\n")
    with pytest.raises(MalformedFileError, match="line 1: broken CSV"):
        told(path, ["who"])


def test_cells_of_parquet_are_what_json_would_hold(tmp_path):
    path = tmp_path / "a.parquet"
    moment = datetime(2020, 1, 2, 3, 4, 5)
    columns = {
        "bytes": pyarrow.array([b"caf\xc3\xa9", b"\xff"], pyarrow.binary()),
        "day": pyarrow.array([date(2020, 1, 2)] * 2),
        "time": pyarrow.array([moment] * 2),
        "price": pyarrow.array([Decimal("1.50")] * 2),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    (first, second) = told(path, [*columns])
    assert first == (
        1,
        {"bytes": "café", "day": "2020-01-02", "time": moment.isoformat(), "price": "1.50"},
    )
    assert second == (2, "not UTF-8 text")


def test_a_cell_of_parquet_that_cannot_be_read_costs_its_row(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {
        "day": pyarrow.array([18263, 5_000_000], pyarrow.date32()),
        "time": pyarrow.array([0, 0], pyarrow.timestamp("s")),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert told(path, [*columns]) == [
        (1, {"day": "2020-01-02", "time": "1970-01-01T00:00:00"}),
        (2, "date value out of range"),
    ]


def test_cells_within_lists_of_parquet_are_what_json_would_hold(tmp_path):
    path = tmp_path / "a.parquet"
    item = {"text": b"caf\xc3\xa9", "stars": Decimal("4.5"), "when": [date(2020, 1, 2)]}
    pyarrow.parquet.write_table(pyarrow.table({"items": [[item]]}), path)
    assert told(path, ["items"]) == [
        (1, {"items": [{"text": "café", "stars": "4.5", "when": ["2020-01-02"]}]})
    ]


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-14:00"])
def test_a_time_before_or_after_all_years_is_no_time(text):
    with pytest.raises(InputError, match="outside the years"):
        _moments(text)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_byte_that_is_no_text_costs_its_own_line(tmp_path, name):
    path = tmp_path / name
    lines = {
        "a.csv": [b"who,text", b"a,\xff", b"b,two"],
        "a.jsonl": [b"", b'"\xff"', b'{"who": "b", "text": "two"}'],
    }
    path.write_bytes(b"\n".join(lines[name]))
    assert told(path, ["who"]) == [(2, "not UTF-8 text"), (3, {"who": "b", "text": "two"})]


def test_blank_lines_before_the_header_are_none(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n \nwho,text\na,one\n")
    assert told(path, ["who"]) == [(4, {"who": "a", "text": "one"})]


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("who,text,who,,\na,one,b,,\n")
    with pytest.raises(MalformedFileError, match="line 1: several columns are called 'who'"):
        told(path, ["who"])


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
@pytest.mark.parametrize("first", ["", "sep={}\r\n"])
def test_the_separator_is_the_one_that_the_header_has(tmp_path, separator, name, first):
    path = tmp_path / "a.csv"
    rows = ["who{}text", "a{}one, two", 'b{}"a line;\ttwo|\nlines"']
    path.write_text(first.format(separator) + "\r\n".join(rows).replace("{}", separator), newline="")
    remarks = []
    found = dict(records(path, ["who", "text"], remarks.append)[1])
    assert list(found.values()) == [
        {"who": "a", "text": "one, two"},
        {"who": "b", "text": "a line;\ttwo|\nlines"},
    ]
    assert remarks == [f"{path}: cells are taken as separated by {name}"]


@pytest.mark.parametrize(
    "text",
    [
        "who,text\na,one; two; three\n",
        "who,text,a;b;c;d\na,one; two; three,\n",
        '"who","text","a\tb\tc\td"\na,one; two; three,\n',
    ],
)
def test_commas_are_the_separator_wherever_the_wanted_columns_are_there_with_them(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text)
    remarks = []
    ((_, row),) = records(path, ["who", "text"], remarks.append)[1]
    assert (row["who"], row["text"], remarks) == ("a", "one; two; three", [])


def test_a_missing_column_is_told_among_those_of_the_likeliest_separator(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("person;text;a,b\na;one;\n")
    with pytest.raises(InputError, match="no column 'persons'; the nearest is 'person'"):
        told(path, ["persons", "text"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_text_in_every_utf_is_read(tmp_path, encoding, packed):
    rows = {
        "a.csv": "who,text\nan\u0113,caf\u00e9 \U0001f600\n",
        "a.json": '[{"who": "an\u0113", "text": "caf\u00e9 \U0001f600"}]',
        "a.jsonl": '{"who": "an\u0113", "text": "caf\u00e9 \U0001f600"}\n',
    }
    for name, text in rows.items():
        path, data = tmp_path / name, text.encode(encoding)
        if packed:
            path, data = path.with_name(f"{name}.gz"), gzip.compress(data)
        path.write_bytes(data)
        assert [row for _, row in told(path, ["who"])] == [{"who": "anē", "text": "café 😀"}]


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl"])
def test_utf_16_that_is_cut_off_is_one_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes("who,text\na,one\n".encode("utf-16")[:-1])
    with pytest.raises(MalformedFileError, match="not UTF-16 text"):
        told(path, ["who"])


def test_half_a_character_of_utf_16_costs_its_own_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("who,text\na,\ud800\nb,two\n".encode("utf-16", "surrogatepass"))
    assert told(path, ["who"]) == [(2, "not UTF-8 text"), (3, {"who": "b", "text": "two"})]


def test_json_is_read_by_what_it_holds_not_by_its_name(tmp_path):
    rows = [{"who": "a", "text": "one"}, {"who": "b", "text": "[two"}]
    lines, listed = "\n".join(map(json.dumps, rows)), json.dumps(rows, indent=1)
    for name, text in (
        ("a.json", lines),
        ("a.json", f"{lines}\n{{"),
        ("a.jsonl", listed),
        ("a.ndjson", listed),
    ):
        (tmp_path / name).write_text(text)
        assert [row for _, row in told(tmp_path / name, ["who"])][:2] == rows
    (tmp_path / "a.jsonl").write_text(f"[1]\n{lines}")
    assert told(tmp_path / "a.jsonl", ["who"]) == [*enumerate([[1], *rows], start=1)]
    for text in ('{"data": []}', '{\n"data": []}', "{}\n"):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(MalformedFileError, match="expected a list of objects"):
            told(tmp_path / "b.json", ["who"])


def test_a_spreadsheet_called_a_table_is_told(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"PK\x03\x04\x14\x00a,b\n")
    with pytest.raises(
        MalformedFileError, match="a ZIP archive or a spreadsheet; unpack it, or save it as CSV"
    ):
        told(tmp_path / "a.csv", ["who"])

"""Records of a file in the forms that people have: CSV, JSON, JSON lines or Parquet, perhaps gzipped."""

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from fedperfit.protocol.system.errors import InputError, MalformedFileError, MissingFileError
from fedperfit.protocol.system.files import as_utf8, json_lines
from fedperfit.protocol.tasks.door import Tell
from fedperfit.protocol.tasks.templates import nearest_of
from fedperfit.simulation.data.csv_rows import CsvRows

FORMS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
"""Endings of the files that can be read; but for Parquet, `.gz` may follow."""
_PACKED = ".gz"
_GZIP = b"\x1f\x8b"
"""Begin of a file that is compressed by gzip, whatever its name: browsers unpack some and keep the name."""
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What may separate the cells of a table, and what each is called."""
_TOLD_BY_EXCEL = re.compile(r"\Asep=.(?=\r?\n)")
"""First line with which Excel is told the separator."""
_LONGEST_CELL = 1 << 24
"""Characters of a cell of a CSV file."""

Record = tuple[int, Any]
"""Number of a line, entry or row, and its value: an InputError where it cannot be read."""


def records(
    path: Path, columns: Collection[str], tell: Tell, *, whole: bool = False
) -> tuple[str, Iterator[Record]]:
    """Read the records of a file one by one.

    Args:
        path: File whose ending tells its form.
        columns: Columns that will be looked for; a table without one of them is refused.
        tell: Told of a separator between cells that is not the one of the file's ending.
        whole: Whether other columns are wanted too, where leaving them out would save reading them.

    Returns:
        What a record's number counts: line, entry or row; and the records.

    Raises:
        InputError: The file is missing, broken as a whole, of another form, or lacks a column.
    """
    form = _form(path)
    if form in (".json", ".jsonl", ".ndjson"):
        text = _text(path, "replace")
        return ("line", json_lines(path)) if _in_lines(text, form) else ("entry", _json(path))
    if form in (".csv", ".tsv"):
        return "line", _csv(path, "\t" if form == ".tsv" else ",", columns, tell)
    if form == ".parquet":
        return "row", _parquet(path, columns, whole=whole)
    raise InputError(f"{path}: expected a file that ends in {', '.join(FORMS)}, or one of these with .gz")


def is_table(path: Path) -> bool:
    """Tell whether a file's name ends as those that can be read do, in capital letters or small ones."""
    return _form(path) in FORMS


def _form(path: Path) -> str:
    return Path(path.name.lower().removesuffix(_PACKED)).suffix


def _text(path: Path, errors: str = "strict") -> str:
    try:
        data = path.read_bytes()
        whole = gzip.decompress(data) if data[:2] == _GZIP else data
        return as_utf8(whole).decode(errors=errors)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise MalformedFileError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except MalformedFileError as error:
        raise MalformedFileError(f"{path}: {error}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise MalformedFileError(f"{path}: broken gzip file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _in_lines(text: str, form: str) -> bool:
    """Whether a JSON file has a value on each line, which not all names tell, and not one list in all."""
    first, _, others = text.strip().partition("\n")
    if form != ".json" and not first.startswith("["):
        return True
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(others) and (form != ".json" or isinstance(value, dict))


def _json(path: Path) -> Iterator[Record]:
    try:
        values = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise MalformedFileError(f"{path}, line {error.lineno}: broken JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise MalformedFileError(f"{path}: JSON with a number too long or nested too deeply") from None
    if not isinstance(values, list):
        raise MalformedFileError(f"{path}: expected a list of objects")
    yield from enumerate(values, start=1)


def _csv(path: Path, usual: str, columns: Collection[str], tell: Tell) -> Iterator[Record]:
    """Yield records and the lines they begin at; a quote that is never closed costs its line alone."""
    csv.field_size_limit(_LONGEST_CELL)
    lines = [*io.StringIO(_TOLD_BY_EXCEL.sub("", _text(path, "surrogateescape")), newline="")]
    delimiter, names, line = _header(path, lines, usual, columns)
    if not _is_text(names):
        raise MalformedFileError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8")
    if twice := [name for name, times in Counter(names).items() if name and times > 1]:
        raise MalformedFileError(f"{path}, line {line}: several columns are called {twice[0]!r}")
    _check_columns(path, names, columns)
    if delimiter != usual:
        tell(f"{path}: cells are taken as separated by {_SEPARATORS[delimiter]}")
    for number, row in CsvRows(lines, delimiter).after(line):
        if isinstance(row, MalformedFileError):
            yield number, row
        elif not _is_text(row):
            yield number, MalformedFileError("not UTF-8 text")
        elif row and len(row) != len(names):
            yield number, MalformedFileError("not as many cells as there are columns")
        elif row:
            yield number, dict(zip(names, row, strict=True))


def _header(
    path: Path, lines: Sequence[str], usual: str, columns: Collection[str]
) -> tuple[str, list[str], int]:
    """Return what separates cells, the names of the columns, and the number of lines up to the end of these.

    The usual separator is taken unless the wanted columns are there with another one alone, or, where they
    are with none, unless another one makes more columns of the header.
    """

    def read(delimiter: str) -> tuple[str, list[str], int]:
        reader = csv.reader(lines, delimiter=delimiter)
        try:
            names = next((row for row in reader if any(cell.strip() for cell in row)), [])
        except csv.Error as error:
            raise MalformedFileError(f"{path}, line {reader.line_num}: broken CSV ({error})") from None
        return delimiter, names, reader.line_num

    found = [read(delimiter) for delimiter in dict.fromkeys((usual, *_SEPARATORS))]
    return max(found, key=lambda header: (set(columns) <= set(header[1]), len(header[1])))


def _is_text(row: list[str]) -> bool:
    """Whether no cell has a byte that is not UTF-8, which stands there as half a character."""
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parquet(path: Path, columns: Collection[str], *, whole: bool) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        _check_columns(path, file.schema_arrow.names, columns)
        number = 0
        for batch in file.iter_batches(columns=None if whole else list(columns)):
            for row in _rows(batch):
                number += 1
                yield number, row
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise MalformedFileError(f"{path}: {str(error).splitlines()[0]}") from None


def _rows(batch: Any) -> list[Any]:
    """Return the rows of a batch; where some cell cannot be read, they are read one by one."""
    try:
        return [_as_json(row) for row in batch.to_pylist()]
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            text = isinstance(error, UnicodeDecodeError)
            return [MalformedFileError("not UTF-8 text" if text else str(error).partition("\n")[0])]
    return [row for number in range(batch.num_rows) for row in _rows(batch.slice(number, 1))]


def _as_json(value: Any) -> Any:
    """Return a cell as JSON would hold it: bytes as UTF-8 text, decimals and times as they are written."""
    if isinstance(value, dict):
        return {name: _as_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_json(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if isinstance(value, date | time) else value


def _check_columns(path: Path, found: Collection[str], wanted: Collection[str]) -> None:
    if not found:
        raise MalformedFileError(f"{path}: an empty file")
    if any(name.startswith("PK\x03\x04") for name in found):
        raise MalformedFileError(f"{path}: a ZIP archive or a spreadsheet; unpack it, or save it as CSV")
    for name in wanted:
        if name not in found:
            raise InputError(f"{path}: no column {name!r}; the nearest is {nearest_of(name, found)!r}")

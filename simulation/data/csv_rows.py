"""Rows of a CSV file, read in time that grows with the file's length alone.

Where a quoted cell goes on in the next lines, each is looked at once for what it is inside such a cell. So
no line is read often, however many quotes are never closed.
"""

import csv
from collections.abc import Iterator, Sequence

from fedperfit.protocol.system.errors import MalformedFileError

Row = tuple[int, list[str] | MalformedFileError]
"""Number of the line at which a row begins, and its cells: an error where it is broken."""
_QUOTE = '"'


class CsvRows:
    """Rows of a table; a quote that is never closed, or after which a cell goes on, costs its line alone."""

    def __init__(self, lines: Sequence[str], delimiter: str) -> None:
        """Read nothing yet.

        Args:
            lines: All lines of the file, with their ends.
            delimiter: What stands between two cells.
        """
        self._lines, self._delimiter = lines, delimiter
        self._looked = 0
        """Number of lines up to the last one that was looked at as a part of a quoted cell."""
        self._closed = False
        """Whether that one closes the cell."""

    def after(self, line: int) -> Iterator[Row]:
        """Yield the rows after a number of lines.

        Args:
            line: The number.
        """
        while line < len(self._lines):
            end, row = self._row(line)
            yield line + 1, row
            line = end

    def _row(self, line: int) -> tuple[int, list[str] | MalformedFileError]:
        """Return the number of lines up to the end of the row after so many, and its cells."""
        end = line + 1
        try:
            closed = self._end(line)
            if closed is None:
                return end, MalformedFileError("broken CSV (a quote that is never closed)")
            end = closed
            return end, next(csv.reader(self._lines[line:end], delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            return end, MalformedFileError(f"broken CSV ({error})")

    def _end(self, line: int) -> int | None:
        """Return the number of lines up to the row's end; None where a quote is never closed."""
        text = self._lines[line]
        if _QUOTE not in text or not self._goes_on(text, strict=False):
            return line + 1
        return self._closing(line + 1) if self._goes_on(text, strict=True) else None

    def _closing(self, line: int) -> int | None:
        """Return the number of lines up to the end of a cell that goes on after so many; None without an end.

        One answer holds for all lines of the cell, so it is found once.
        """
        if line >= self._looked:
            self._looked, self._closed = line, False
            try:
                while self._looked < len(self._lines) and not self._closed:
                    self._looked += 1
                    text = self._lines[self._looked - 1]
                    self._closed = _QUOTE in text and not self._goes_on(_QUOTE + text, strict=True)
            except csv.Error:  # a quote within a cell
                pass
        return self._looked if self._closed else None

    def _goes_on(self, text: str, *, strict: bool) -> bool:
        """Whether a row that begins with a line goes on in the next; raises csv.Error where it is broken."""
        reader = csv.reader([text, ""], delimiter=self._delimiter, strict=strict)
        try:
            next(reader)
        except csv.Error:
            if reader.line_num == 1:
                raise
        return reader.line_num == 2

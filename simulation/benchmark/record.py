"""Measurements of one benchmark on file, so that an interrupted run continues where it stopped."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json

FORMAT = 1
"""Version of the file."""


class Record:
    """Measurements by name, written to a JSON file as each one is done."""

    def __init__(self, path: Path, settings: Mapping[str, Any], on_done: Callable[[str, str], None]) -> None:
        """Open the file, or start a new one.

        Args:
            path: The JSON file.
            settings: Settings that the measurements depend on.
            on_done: Called with the name and the figures of each new measurement.

        Raises:
            InputError: The file holds measurements under other settings.
        """
        self.path, self.on_done = path, on_done
        self._content: dict[str, Any] = {"format": FORMAT, "settings": {**settings}, "measurements": {}}
        if path.exists():
            content = read_json(path)
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise InputError(f"{path}: not a file of benchmark measurements")
            if content["settings"] != self._content["settings"]:
                raise InputError(f"{path} was measured with other settings: name another --out")
            self._content = content

    @property
    def measurements(self) -> dict[str, dict[str, Any]]:
        """Measurements that are done, by name."""
        done: dict[str, dict[str, Any]] = self._content["measurements"]
        return done

    def measure(self, name: str, take: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the measurement `name`; it is taken unless it is on file.

        Args:
            name: Name of the measurement.
            take: Takes the measurement; its InputError is kept as `error`.
        """
        if name not in self.measurements:
            try:
                figures = take()
            except InputError as error:
                figures = {"error": str(error)}
            self.measurements[name] = figures
            write_json(self.path, self._content)
            self.on_done(name, _short(figures))
        return self.measurements[name]

    def put(self, name: str, table: Any) -> None:
        """Add a result computed from the measurements.

        Args:
            name: Name of the result.
            table: The result as JSON values.
        """
        self._content[name] = table
        write_json(self.path, self._content)


def _short(figures: Mapping[str, Any]) -> str:
    if "error" in figures:
        return str(figures["error"])
    numbers = {name: value for name, value in figures.items() if isinstance(value, float | int)}
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())

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

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        on_done: Callable[[str, str], None],
        origin: Mapping[str, Any],
    ) -> None:
        """Open the file, or start a new one.

        Args:
            path: The JSON file.
            settings: Settings that the measurements depend on.
            on_done: Called with the name and the figures of each new measurement.
            origin: Commit, machine and versions that new measurements come from.

        Raises:
            InputError: The file holds measurements under other settings, or of another commit.
        """
        self.path, self.on_done = path, on_done
        self._content: dict[str, Any] = {
            "format": FORMAT,
            "origin": {**origin},
            "settings": {**settings},
            "measurements": {},
        }
        if path.exists():
            content = read_record(path)
            if content["settings"] != self._content["settings"]:
                raise InputError(f"{path} was measured with other settings: name another --out")
            if content.get("origin", origin).get("commit") != origin.get("commit"):
                raise InputError(f"{path} was measured at another commit: name another --out")
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


def read_record(path: Path) -> dict[str, Any]:
    """Read a file of measurements.

    Args:
        path: The JSON file.

    Raises:
        InputError: The file cannot be read, or holds something else.
    """
    content = read_json(path)
    if not _is_record(content):
        raise InputError(f"{path}: not a file of benchmark measurements")
    return dict(content)


def _is_record(content: Any) -> bool:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return False
    parts = content.get("settings"), content.get("measurements"), content.get("origin", {})
    return all(isinstance(part, dict) for part in parts) and all(
        isinstance(figures, dict) for figures in content["measurements"].values()
    )


def _short(figures: Mapping[str, Any]) -> str:
    if "error" in figures:
        return str(figures["error"])
    numbers = {name: value for name, value in figures.items() if isinstance(value, float | int)}
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())

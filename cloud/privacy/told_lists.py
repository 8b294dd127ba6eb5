"""Over whom sums were told under the release in force, so that members need not refuse the next one.

Members tell no sum that, taken from earlier ones, would tell of too few people. The cloud asks for none: of a
round's contributors it leaves out those that would stand apart.
"""

from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock
from typing_extensions import TypedDict

from fedperfit.protocol.secure_sums.cohorts import most_together
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.files import write_json

FILE = "told-sums.json"
"""File beside the runs of a federation: a release, and the names in each sum under it."""


class _Kept(TypedDict):
    """What the file holds."""

    release: str
    lists: list[list[str]]


class ToldLists:
    """The lists of all runs of a federation."""

    def __init__(self, folder: Path, release: str, fewest: int) -> None:
        """Read nothing until a sum is to be told.

        Args:
            folder: Folder of the file.
            release: Digest of the release in force; lists under another one are forgotten.
            fewest: Fewest people that sums, taken from each other, may tell of.
        """
        self._path, self._release, self._fewest = folder / FILE, release, fewest
        self._lock = FileLock(folder / f".{FILE}.lock")

    def claim(self, available: Iterable[str], least: int) -> list[str]:
        """Return who of these can be in the next sum, sorted; it is kept before anybody is asked.

        Args:
            available: Names of the contributors.
            least: Fewest people in a sum; of fewer none is kept.
        """
        with self._lock:
            told = self._told()
            chosen = most_together(told, available, self._fewest)
            if len(chosen) >= least and chosen not in told:
                write_json(self._path, {"release": self._release, "lists": [*told, chosen]})
        return chosen

    def _told(self) -> list[list[str]]:
        if not self._path.exists():
            return []
        kept = read_form(self._path, _Kept)
        return kept["lists"] if kept["release"] == self._release else []

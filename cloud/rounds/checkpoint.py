"""Checkpoints: one file per finished round, so that a killed run resumes with the same result.

`round-0000.safetensors` is the start, before any update. All rounds are kept, and each file has the report of
its own round; those of earlier versions have the reports of all rounds before it, too.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.shift.packing import ShiftHeader, pack, unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.shift.shift_file import read_shift_file, write_shift_file
from fedperfit.protocol.system.errors import InputError

_KIND = "checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a federation between two rounds."""

    round: int
    """Number of finished rounds."""
    shift: Shift
    """Collective shift after that round."""
    header: ShiftHeader
    """Header of the shift, in fp32 however shifts travel: a resumed run continues from the same numbers."""
    digest: str
    """SHA-256 of the run's settings."""
    entries: int
    """Length of the ledger; entries beyond it belong to an unfinished round."""
    history: list[RoundReport]
    """Reports of all finished rounds."""
    numbers: list[float] | None = None
    """Coordinates of the shift in the run's basis, where it has one: the shift alone does not tell them
    exactly."""

    def without_updates(self, rounds: int) -> bool:
        """Return whether all rounds are over and none had an update, so that there is nothing to keep.

        Args:
            rounds: Number of rounds of the run.
        """
        return len(self.history) == rounds and all(report.skipped for report in self.history)


class Checkpoints:
    """The checkpoints in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Folder of the files; made by the first write."""

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, whole or not at all."""
        fields: dict[str, Any] = {
            "round": checkpoint.round,
            "digest": checkpoint.digest,
            "entries": checkpoint.entries,
        }
        if checkpoint.history:
            fields["report"] = checkpoint.history[-1].to_json()
        if checkpoint.numbers is not None:
            fields["numbers"] = checkpoint.numbers
        packed = pack(checkpoint.shift, checkpoint.header)
        write_shift_file(self.path(checkpoint.round), _KIND, packed, fields)

    def read(self, round: int) -> Checkpoint:
        """Read the checkpoint of a finished round; 0 is the start.

        Raises:
            InputError: If the file cannot be read.
        """
        return self._read(self.path(round))

    def clear(self) -> None:
        """Remove every checkpoint, the start included."""
        for path in sorted(self.folder.glob("round-*.safetensors"), reverse=True):
            path.unlink()

    def latest(self, digest: str | None = None) -> Checkpoint | None:
        """Return the checkpoint of the last finished round, or None.

        Args:
            digest: SHA-256 of the settings that the run must have; None accepts any.

        Raises:
            InputError: If the file cannot be read, or the run has other settings.
        """
        files = sorted(self.folder.glob("round-*.safetensors"))
        if not files:
            return None
        checkpoint = self._read(files[-1])
        if digest is not None and checkpoint.digest != digest:
            raise InputError(f"{self.folder}: the checkpoints belong to a run with other settings")
        return checkpoint

    def rewind(self, ledger: Ledger) -> Checkpoint | None:
        """Cut from a ledger the entries after the latest checkpoint, all if there is none.

        Args:
            ledger: Ledger of the same phase.

        Returns:
            The latest checkpoint, or None.

        Raises:
            InputError: If the ledger is shorter than the checkpoint says.
        """
        checkpoint = self.latest()
        ledger.cut(checkpoint.entries if checkpoint else 0)
        return checkpoint

    def path(self, round: int) -> Path:
        """Return the file of a round, counted from 1; 0 is the start."""
        return self.folder / f"round-{round:04d}.safetensors"

    def _read(self, path: Path) -> Checkpoint:
        packed, fields, _ = read_shift_file(path, _KIND)
        for name, kind in (("round", int), ("digest", str), ("entries", int)):
            if type(fields.get(name)) is not kind:
                raise InputError(f"{path}: the checkpoint's {name} is missing or not of type {kind.__name__}")
        try:
            shift, header = unpack(packed)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        if self.path(fields["round"]) != path or header.round != fields["round"]:
            raise InputError(f"{path}: holds round {fields['round']}")
        numbers = fields.get("numbers")
        if numbers is not None and not (
            isinstance(numbers, list) and all(isinstance(number, float) for number in numbers)
        ):
            raise InputError(f"{path}: the checkpoint's coordinates are not a list of numbers")
        history = self._history(fields["round"])
        return Checkpoint(
            fields["round"], shift, header, fields["digest"], fields["entries"], history, numbers
        )

    def _history(self, round: int) -> list[RoundReport]:
        """Gather the reports of the rounds up to one, from the files of all of them."""
        before: list[RoundReport] = []
        after: list[RoundReport] = []
        for number in range(round, -1, -1):
            path = self.path(number)
            _, fields, _ = read_shift_file(path, _KIND)
            try:
                if "history" in fields:
                    before = [RoundReport.from_json(one) for one in fields["history"]]
                    break
                if number:
                    after.append(RoundReport.from_json(fields.get("report")))
            except (InputError, TypeError) as error:
                raise InputError(f"{path}: {error}") from None
        names: dict[str, str] = {}
        return [_sharing(report, names) for report in [*before, *reversed(after)]]


def _sharing(report: RoundReport, names: dict[str, str]) -> RoundReport:
    """Return a report whose names are the objects of the reports before it: a round may have thousands."""
    asked, admitted = (
        [names.setdefault(name, name) for name in each] for each in (report.asked, report.admitted)
    )
    return replace(report, asked=asked, admitted=admitted)

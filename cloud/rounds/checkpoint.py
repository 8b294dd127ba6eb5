"""One file per finished round, so that a killed run resumes with the same result.

`round-0000.safetensors` is the start, before any update. All rounds are kept.
"""

from dataclasses import dataclass
from pathlib import Path

from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.shift.packing import ShiftHeader, pack, unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.shift.shift_file import read_shift_file, write_shift_file
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic

_KIND = "checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a federation between two rounds."""

    round: int
    """Rounds done."""
    shift: Shift
    header: ShiftHeader
    """Of the shift, in fp32 whatever travels: a resumed run continues from the very same numbers."""
    digest: str
    """SHA-256 of the run's settings."""
    entries: int
    """Length of the ledger; what lies beyond belongs to an unfinished round."""
    history: list[RoundReport]
    """One report per round done."""


class Checkpoints:
    """The checkpoints in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, checkpoint: Checkpoint) -> None:
        """Keep `checkpoint`, whole or not at all."""
        fields = {
            "round": checkpoint.round,
            "digest": checkpoint.digest,
            "entries": checkpoint.entries,
            "history": [report.to_json() for report in checkpoint.history],
        }
        packed = pack(checkpoint.shift, checkpoint.header)
        write_shift_file(self.path(checkpoint.round), _KIND, packed, fields)

    def latest(self, digest: str | None = None) -> Checkpoint | None:
        """The checkpoint of the last finished round; None when there is none.

        Raises InputError when that file cannot be read, and when `digest` is given and differs.
        """
        files = sorted(self.folder.glob("round-*.safetensors"))
        if not files:
            return None
        checkpoint = self._read(files[-1])
        if digest is not None and checkpoint.digest != digest:
            raise InputError(f"{self.folder}: the run folder holds a run with other settings")
        return checkpoint

    def rewind(self, ledger: Ledger) -> Checkpoint | None:
        """Cut from `ledger` what came after the latest checkpoint (all, when there is none).

        Raises InputError when the ledger is shorter than the checkpoint says.
        """
        checkpoint = self.latest()
        keep = checkpoint.entries if checkpoint else 0
        if not ledger.path.exists() and not keep:
            return checkpoint
        lines = ledger.path.read_bytes().splitlines(keepends=True) if ledger.path.exists() else []
        if len(lines) < keep or not all(line.endswith(b"\n") for line in lines[:keep]):
            raise InputError(f"{ledger.path}: {len(lines)} entries, but the last checkpoint counts {keep}")
        if len(lines) > keep:
            write_atomic(ledger.path, b"".join(lines[:keep]))
        return checkpoint

    def path(self, round: int) -> Path:
        """The file of round `round`."""
        return self.folder / f"round-{round:04d}.safetensors"

    def _read(self, path: Path) -> Checkpoint:
        packed, fields, _ = read_shift_file(path, _KIND)
        for name, kind in (("round", int), ("digest", str), ("entries", int), ("history", list)):
            if type(fields.get(name)) is not kind:
                raise InputError(f"{path}: the checkpoint's {name} is missing or no {kind.__name__}")
        try:
            shift, header = unpack(packed)
            history = [RoundReport.from_json(report) for report in fields["history"]]
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        if self.path(fields["round"]) != path or header.round != fields["round"]:
            raise InputError(f"{path}: holds round {fields['round']}")
        return Checkpoint(fields["round"], shift, header, fields["digest"], fields["entries"], history)

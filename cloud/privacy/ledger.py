"""The ledger of what was spent: every noised sum of a federation, over all its runs.

A line is written before the sum it is for, and names the line before it and a code over both under a key
that lies beside the file: lines cannot be changed, dropped from the middle or moved without the key. A round
that is charged already is not charged again. A run says of its finished rounds that they are charged, and of
later ones that they are not, so that neither file can be set back against the other.
"""

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from fedperfit.cloud.privacy.accountant import Charge, epsilon_of
from fedperfit.protocol.privacy.noise import SECRET_BYTES, new_secret
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.system.files import append_text, create_whole, mend_lines, read_json_lines

LEDGER = "privacy.jsonl"
KEY = "privacy.key"
_CODE = "code"


class BudgetSpent(RunFailed):
    """The next round would tell more than was promised."""


@dataclass(frozen=True)
class Line:
    """The charge of one round of a run."""

    run: str
    """Digest of the run's secret, which no other run shares."""
    round: int
    """Round, counted from 1."""
    multiplier: float
    """Standard deviation of the noise, in sensitivities."""
    rate: float
    """Probability with which each client was drawn; 0 where none could be."""

    @property
    def charge(self) -> Charge:
        """What the line adds to the total."""
        return Charge(self.multiplier, self.rate)

    @classmethod
    def end(cls, run: str, rounds: int) -> "Line":
        """Make the line after a run's last round, which draws nobody and costs nothing."""
        return cls(run, rounds + 1, 0.0, 0.0)


class PrivacyLedger:
    """The lines in one folder."""

    def __init__(self, folder: Path) -> None:
        """Open the ledger of a folder.

        Args:
            folder: Folder of the file and its key, made by the first charge.
        """
        self.path, self._key = folder / LEDGER, folder / KEY
        self._lock = FileLock(folder / f".{LEDGER}.lock")

    def lines(self) -> list[Line]:
        """Return all lines in order.

        Raises:
            InputError: If a line is malformed, changed or out of place, or the key is missing.
        """
        if not self.path.exists():
            return []
        key, code, lines = self._read_key(), "", []
        for number, fields in enumerate(read_json_lines(self.path), start=1):
            try:
                told = fields.pop(_CODE)
                line = Line(**fields)
            except (AttributeError, KeyError, TypeError):
                raise InputError(f"{self.path}: line {number} is not a charge") from None
            code = _code(key, code, line)
            if not isinstance(told, str) or not hmac.compare_digest(code, told):
                raise InputError(f"{self.path}: line {number} was changed, or one before it is missing")
            lines.append(line)
        return lines

    def charge(self, line: Line, target: float, delta: float) -> None:
        """Charge a round before its sum is made; one that is charged already stays as it is.

        Args:
            line: The round.
            target: Epsilon that all charges together may reach.
            delta: Delta of the promise.

        Raises:
            BudgetSpent: If the round would go beyond the target; it is not charged then.
            InputError: If the ledger is broken, or holds the round with other noise.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            mend_lines(self.path)
            lines = self.lines()
            for known in lines:
                if (known.run, known.round) == (line.run, line.round):
                    if known != line:
                        raise InputError(f"{self.path}: round {line.round} was charged with other noise")
                    return
            epsilon = epsilon_of([known.charge for known in (*lines, line)], delta)
            if epsilon > target * (1 + 1e-9):
                raise BudgetSpent(
                    f"round {line.round} would bring epsilon to {epsilon:.4g} at delta={delta:g}, above "
                    f"target-epsilon={target:g}"
                )
            self._append(lines, line)

    def check(self, run: str, rounds: int) -> None:
        """See that exactly the finished rounds of a run are charged, and perhaps the one that was begun.

        Args:
            run: Digest of the run's secret.
            rounds: Finished rounds.

        Raises:
            InputError: If charges are missing, or there are some for rounds that are not finished.
        """
        charged = {line.round for line in self.lines() if line.run == run}
        if charged - set(range(1, rounds + 2)):
            raise InputError(
                f"{self.path}: round {max(charged)} is charged, but the checkpoints end with {rounds}: they "
                "were set back; a second answer under the same noise would tell what it hides"
            )
        missing = set(range(1, rounds + 1)) - charged
        if missing:
            raise InputError(f"{self.path}: finished round {min(missing)} is not charged: lines are missing")

    def epsilon(self, delta: float) -> float:
        """Return what all charges together tell; see `accountant.epsilon_of`."""
        return epsilon_of([line.charge for line in self.lines()], delta)

    def _append(self, lines: list[Line], line: Line) -> None:
        if not lines and not self._key.exists():
            write_secret(self._key, new_secret())
        key, code = self._read_key(), ""
        for known in [*lines, line]:
            code = _code(key, code, known)
        append_text(self.path, json.dumps(asdict(line) | {_CODE: code}) + "\n", durable=True)

    def _read_key(self) -> bytes:
        return read_secret(self._key)


def write_secret(path: Path, secret: bytes) -> None:
    """Write a secret that only this account can read, unless there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    create_whole(path, secret)


def read_secret(path: Path) -> bytes:
    """Read a secret.

    Raises:
        InputError: If it is missing or not of its length.
    """
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if len(secret) != SECRET_BYTES:
        raise InputError(f"{path}: {len(secret)} bytes, expected {SECRET_BYTES}")
    return secret


def _code(key: bytes, before: str, line: Line) -> str:
    content = json.dumps([before, asdict(line)], sort_keys=True).encode()
    return hmac.new(key, content, hashlib.sha256).hexdigest()

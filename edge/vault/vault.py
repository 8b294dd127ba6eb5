"""Where one person's personal shifts and learned items are kept: sealed files in a folder of their own.

    vault.key           the key, or where it is (fedperfit.edge.vault.vault_key)
    shifts/SLOT.sealed  a personal shift
    learned.sealed      items the agent was given by `learn`

A file is replaced whole or not at all; one process at a time writes.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import safetensors.torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from fedperfit.edge.vault.keys import FileKey, KeyKeeper
from fedperfit.edge.vault.personal import PersonalShift
from fedperfit.edge.vault.sealed import read_header, seal, unseal
from fedperfit.edge.vault.vault_key import VaultKey, destroy_key, read_key, rotating, write_key
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shift import ShiftShape
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import sweep, write_atomic

FORMAT = 2
_LOCK_SECONDS = 0.5
_LARGEST = 1 << 30
"""Bytes of a sealed file read at most."""


@dataclass(frozen=True)
class ShiftKey:
    """What a personal shift fits: it is refused on top of anything else."""

    task: str
    fingerprint: str
    """Of the base model."""
    release: str
    """SHA-256 of the packed collective shift beneath it."""
    additive: bool


@dataclass(frozen=True)
class FitRecord:
    """How a personal shift came to be."""

    items: int = 0
    """It was fitted on."""
    origin: str = "fitted"
    """`fitted`, `carried over` or `learned`."""
    version: int = 0
    """Of the release beneath it; 0 where releases have none."""
    training: dict[str, Any] = field(default_factory=dict)
    """`TrainingSettings` it was fitted with, as a config."""
    stage: str = "personal"
    """That suits the person best, as `edge.agent.choice` chose it."""
    judged: dict[str, float] = field(default_factory=dict)
    """Of each stage that could answer, the mean loss on the person's items that were held out for this."""
    stored: str = ""
    """ISO 8601, UTC; set by the vault."""


@dataclass(frozen=True)
class StoredShift:
    """What a stored shift says of itself."""

    shape: ShiftShape
    belonging: ShiftKey
    account: FitRecord
    writes: int
    """How often its slot was written."""


class Vault:
    """Personal shifts of one person, by slot name, and learned items."""

    def __init__(self, folder: Path, keeper: KeyKeeper | None = None) -> None:
        """Nothing is read or made before it is needed; a new vault's key is kept in a file by default."""
        self.folder = folder
        self._keeper = keeper or FileKey()
        self._lock = FileLock(folder / ".lock", timeout=_LOCK_SECONDS, thread_local=False)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No other process uses the vault meanwhile; raises InputError when one does."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lock = self._lock.acquire()
        except Timeout:
            raise InputError(f"{self.folder}: another process is using this vault") from None
        with lock:
            if self._lock.lock_counter == 1:
                for folder in (self.folder, self._shifts):
                    sweep(folder)
                self._finish_rotation()
            yield

    def store(self, slot: str, shift: PersonalShift, belonging: ShiftKey, account: FitRecord) -> None:
        """Replace slot `slot` atomically.

        Raises InputError when what it holds is broken, or of another task or base model.
        """
        shape = shift.shape
        with self.held():
            header = {
                "slot": slot,
                "layers": list(shape.layers),
                "rank": shape.rank,
                "hidden_size": shape.hidden_size,
                "positions": str(shape.positions),
                "writes": self._writes(slot, belonging) + 1,
                **asdict(belonging),
                **asdict(replace(account, stored=datetime.now(UTC).isoformat(timespec="seconds"))),
            }
            tensors = {"R": shift.R, "W": shift.W, "b": shift.b}
            content = safetensors.torch.save(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            )
            self._write(self._path(slot), "shift", header, content)

    def _writes(self, slot: str, belonging: ShiftKey) -> int:
        """How often the slot was written; raises InputError when it holds what must not be replaced."""
        if not self._path(slot).is_file():
            return 0
        kept, _ = self.open(slot)
        if (kept.belonging.task, kept.belonging.fingerprint) != (belonging.task, belonging.fingerprint):
            raise InputError(f"slot {slot!r} holds a shift of another task or base model: forget it first")
        return kept.writes

    def load(self, slot: str, belonging: ShiftKey) -> PersonalShift:
        """The shift in `slot`; raises InputError when missing, changed, or made for something else."""
        kept, shift = self.open(slot)
        if kept.belonging != belonging:
            raise InputError(f"the personal shift in slot {slot!r} belongs to another release or base model")
        return shift

    def open(self, slot: str) -> tuple[StoredShift, PersonalShift]:
        """What `slot` holds, whatever it belongs to; raises InputError when missing or changed."""
        path = self._path(slot)
        if not path.is_file():
            raise InputError(f"no personal shift in slot {slot!r}: personalize first")
        header, content = self._read(path, "shift")
        try:
            kept = _kept(header)
            if header["slot"] != slot:
                raise ValueError
            tensors = safetensors.torch.load(content)
            return kept, PersonalShift(kept.shape, **{name: tensors[name] for name in ("R", "W", "b")})
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise InputError(f"{path}: not a personal shift of slot {slot!r}") from None

    def slots(self) -> list[str]:
        """Names of the slots that hold a shift."""
        return sorted(path.stem for path in self._shifts.glob("*.sealed"))

    def learned(self) -> list[dict[str, Any]]:
        """The items kept by `learn`, oldest first."""
        path = self._learned
        if not path.is_file():
            return []
        _, content = self._read(path, "learned")
        items: list[dict[str, Any]] = json.loads(content)
        return items

    def learn(self, items: list[dict[str, Any]]) -> None:
        """Append items."""
        with self.held():
            known = self.learned()
            content = json.dumps(known + items, ensure_ascii=False).encode()
            self._write(self._learned, "learned", {"items": len(known) + len(items)}, content)

    def rotate(self, keeper: KeyKeeper) -> None:
        """Seal everything under a new key, kept by `keeper`; a kill in between is made good later."""
        with self.held():
            old, old_keeper = self._key(), self._keeper
            write_key(self._key_path, VaultKey.new().replacing(old), keeper)
            self._keeper = keeper
            self._finish_rotation()
            old_keeper.destroy(old.name)

    def forget(self) -> tuple[int, int]:
        """Destroy the key, then delete all it sealed; how many shifts and learned items there were."""
        with self.held():
            shifts = self.slots()
            try:
                learned = len(self.learned())
            except InputError:
                learned = 0
            if self._key_path.exists():
                destroy_key(self._key_path, self._keeper)
            for slot in shifts:
                self._path(slot).unlink(missing_ok=True)
            self._learned.unlink(missing_ok=True)
            return len(shifts), learned

    def _finish_rotation(self) -> None:
        if not (self._key_path.is_file() and rotating(self._key_path)):
            return
        key = read_key(self._key_path, self._keeper)
        for path in self._sealed():
            header, content = self._read(path, None)
            if header["key"] != key.name:
                write_atomic(path, seal(header | {"key": key.name}, content, key.key))
        write_key(self._key_path, replace(key, retiring=None), self._keeper)

    def _key(self, *, make: bool = False) -> VaultKey:
        if self._key_path.is_file():
            return read_key(self._key_path, self._keeper)
        if self._sealed() or not make:
            raise InputError(f"{self._key_path}: the key is gone, and with it what the vault held")
        key = VaultKey.new()
        write_key(self._key_path, key, self._keeper)
        return key

    def _write(self, path: Path, kind: str, header: dict[str, Any], content: bytes) -> None:
        key = self._key(make=True)
        header = {**header, "format": FORMAT, "kind": kind, "key": key.name}
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, seal(header, content, key.key))

    def _read(self, path: Path, kind: str | None) -> tuple[dict[str, Any], bytes]:
        header = self._header(path)
        try:
            key = self._key().named(str(header.get("key")))
            header, content = unseal(path.read_bytes(), key)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        if header.get("format") != FORMAT or (kind is not None and header.get("kind") != kind):
            raise InputError(f"{path}: not a {kind} of format {FORMAT}")
        return header, content

    def _header(self, path: Path) -> dict[str, Any]:
        """Not verified."""
        try:
            if path.stat().st_size > _LARGEST:
                raise InputError("too large")
            return read_header(path.read_bytes())[0]
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None

    def _sealed(self) -> list[Path]:
        return [path for path in (*self._shifts.glob("*.sealed"), self._learned) if path.is_file()]

    @property
    def _shifts(self) -> Path:
        return self.folder / "shifts"

    @property
    def _learned(self) -> Path:
        return self.folder / "learned.sealed"

    @property
    def _key_path(self) -> Path:
        return self.folder / "vault.key"

    def _path(self, slot: str) -> Path:
        return self._shifts / f"{slot}.sealed"


def _kept(header: dict[str, Any]) -> StoredShift:
    belonging = ShiftKey(**{name: header[name] for name in ShiftKey.__dataclass_fields__})
    header = {"stage": "personal", "judged": {}, **header}  # which shifts stored by earlier versions lack
    account = FitRecord(**{name: header[name] for name in FitRecord.__dataclass_fields__})
    shape = ShiftShape(
        layers=tuple(header["layers"]),
        rank=header["rank"],
        hidden_size=header["hidden_size"],
        positions=Positions.parse(header["positions"]),
    )
    return StoredShift(shape, belonging, account, header["writes"])

"""Keeps one person's personal shifts and learned items as sealed files in a folder of their own.

    vault.key           the key, or what is needed to get it (fedperfit.edge.vault.vault_key)
    shifts/SLOT.sealed  a personal shift
    learned.sealed      items the agent was given by `learn`
    history.sealed      items and questions imported when the folder was made

A file is replaced whole or not at all; one process at a time writes.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

from fedperfit.edge.vault.keys import FileKey, KeyKeeper
from fedperfit.edge.vault.sealed import read_header, seal, unseal
from fedperfit.edge.vault.stored_shift import FitRecord, ShiftKey, StoredShift, shift_of, tensor_bytes
from fedperfit.edge.vault.vault_key import VaultKey, destroy_key, read_key, rotating, write_key
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import sweep, write_atomic

if TYPE_CHECKING:  # torch, which listing what is here does without
    from fedperfit.edge.vault.personal import PersonalShift

VAULT = "vault"
"""Name of the vault's folder in a person's own folder."""
FORMAT = 2
_LOCK_SECONDS = 0.5
_LARGEST = 1 << 30
"""Bytes of the largest sealed file that is read."""


class Forgotten(NamedTuple):
    """Numbers of what `forget` deleted."""

    shifts: int
    """Number of personal shifts."""
    learned: int
    """Number of learned items."""
    imported: int
    """Number of items of an imported history."""


class Vault:
    """Sealed store of one person's shifts, by slot name, and learned items."""

    def __init__(self, folder: Path, keeper: KeyKeeper | None = None) -> None:
        """Read or make nothing until it is needed.

        Args:
            folder: the vault's own folder.
            keeper: keeps the key; by default a file beside the vault's.
        """
        self.folder = folder
        self._keeper = keeper or FileKey()
        self._lock = FileLock(folder / ".lock", timeout=_LOCK_SECONDS, thread_local=False)

    @contextmanager
    def held(self, *, finishing: bool = True) -> Iterator[None]:
        """Keep other processes from using the vault inside the block.

        Args:
            finishing: whether a rotation that was killed is finished first, for which its keeper is needed.

        Raises:
            InputError: another process is using it.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lock = self._lock.acquire()
        except Timeout:
            raise InputError(f"{self.folder}: another process is using this vault") from None
        with lock:
            if self._lock.lock_counter == 1:
                for folder in (self.folder, self._shifts):
                    sweep(folder)
                if finishing:
                    self._finish_rotation()
            yield

    def store(self, slot: str, shift: "PersonalShift", shift_key: ShiftKey, fit_record: FitRecord) -> None:
        """Replace the content of a slot atomically.

        Args:
            slot: name of the slot.
            shift: personal shift to be sealed.
            shift_key: task, base model and release the shift was fitted for.
            fit_record: how it was fitted; the time of storing is set here.

        Raises:
            InputError: the slot holds a broken shift, or one of another task or base model.
        """
        with self.held():
            now = replace(fit_record, stored=datetime.now(UTC).isoformat(timespec="seconds"))
            stored = StoredShift(shift.shape, shift_key, now, self._writes(slot, shift_key) + 1)
            self._write(self._path(slot), "shift", {"slot": slot, **stored.fields()}, tensor_bytes(shift))

    def _writes(self, slot: str, shift_key: ShiftKey) -> int:
        """Number of times the slot was written; raises InputError when its content must not be replaced."""
        if not self._path(slot).is_file():
            return 0
        stored, _ = self.open(slot)
        if (stored.shift_key.task, stored.shift_key.fingerprint) != (shift_key.task, shift_key.fingerprint):
            raise InputError(f"slot {slot!r} holds a shift of another task or base model: forget it first")
        return stored.writes

    def load(self, slot: str, shift_key: ShiftKey) -> "PersonalShift":
        """Open the personal shift in a slot, to be used on a release.

        Args:
            slot: name of the slot.
            shift_key: task, base model and release it is to be used on.

        Raises:
            InputError: the shift is missing, was changed, or was fitted for another release or base model.
        """
        stored, shift = self.open(slot)
        if stored.shift_key != shift_key:
            raise InputError(f"the personal shift in slot {slot!r} belongs to another release or base model")
        return shift

    def open(self, slot: str) -> "tuple[StoredShift, PersonalShift]":
        """Open the personal shift in a slot, whatever release it was fitted for.

        Raises:
            InputError: the shift is missing or was changed.
        """
        path = self._path(slot)
        if not path.is_file():
            raise InputError(f"no personal shift in slot {slot!r}: personalize first")
        header, content = self._read(path, "shift")
        try:
            if header["slot"] != slot:
                raise ValueError
            stored = StoredShift.of(header)
            return stored, shift_of(stored.shape, content)
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}: not a personal shift of slot {slot!r}") from None

    def drop(self, slot: str) -> None:
        """Delete what a slot holds, if it holds anything."""
        with self.held():
            self._path(slot).unlink(missing_ok=True)

    def slots(self) -> list[str]:
        """Names of the slots that hold a shift."""
        return sorted(path.stem for path in self._shifts.glob("*.sealed"))

    def imported(self) -> dict[str, list[dict[str, Any]]]:
        """History stored by `import_history`, by part; raises InputError when it cannot be unsealed."""
        if not self._history.is_file():
            return {}
        _, content = self._read(self._history, "history")
        parts: dict[str, list[dict[str, Any]]] = json.loads(content)
        return parts

    def import_history(self, parts: dict[str, list[dict[str, Any]]]) -> None:
        """Store a history, in place of one imported before.

        Args:
            parts: items, answered and questions, each a list of fields by name.
        """
        with self.held():
            content = json.dumps(parts, ensure_ascii=False).encode()
            self._write(self._history, "history", {"items": len(parts["items"])}, content)

    def learned(self) -> list[dict[str, Any]]:
        """Items stored by `learn`, oldest first; raises InputError when they cannot be unsealed."""
        path = self._learned
        if not path.is_file():
            return []
        _, content = self._read(path, "learned")
        items: list[dict[str, Any]] = json.loads(content)
        return items

    def learn(self, items: list[dict[str, Any]]) -> None:
        """Append items, fields by name, to those learned before."""
        with self.held():
            known = self.learned()
            content = json.dumps(known + items, ensure_ascii=False).encode()
            self._write(self._learned, "learned", {"items": len(known) + len(items)}, content)

    def unlearn(self, numbers: Iterable[int]) -> None:
        """Remove items from those learned.

        Args:
            numbers: their places, from 1; others are ignored.
        """
        with self.held():
            gone = set(numbers)
            kept = [item for number, item in enumerate(self.learned(), start=1) if number not in gone]
            content = json.dumps(kept, ensure_ascii=False).encode()
            self._write(self._learned, "learned", {"items": len(kept)}, content)

    @property
    def empty(self) -> bool:
        """Whether there is no key and nothing sealed, as before the first use or after `forget`."""
        return not (self._key_path.exists() or self._sealed())

    def rotate(self, keeper: KeyKeeper) -> None:
        """Seal everything under a new key, kept by `keeper`; the next `held` finishes a killed rotation."""
        with self.held():
            old, old_keeper = self._key(), self._keeper
            write_key(self._key_path, VaultKey.new().replacing(old), keeper)
            self._keeper = keeper
            self._finish_rotation()
            old_keeper.destroy(old.name)

    def forget(self) -> "Forgotten":
        """Destroy the key, then delete everything it sealed."""
        with self.held(finishing=False):
            shifts, learned, imported = self.slots(), 0, 0
            with suppress(InputError):  # without the key they cannot be counted
                learned = len(self.learned())
                imported = len(self.imported().get("items", []))
            if self._key_path.exists():
                destroy_key(self._key_path, self._keeper)
            for slot in shifts:
                self._path(slot).unlink(missing_ok=True)
            for path in (self._learned, self._history):
                path.unlink(missing_ok=True)
            return Forgotten(len(shifts), learned, imported)

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
        """The header of a sealed file, not yet verified."""
        try:
            if path.stat().st_size > _LARGEST:
                raise InputError("too large")
            return read_header(path.read_bytes())[0]
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None

    def _sealed(self) -> list[Path]:
        return [
            path for path in (*self._shifts.glob("*.sealed"), self._learned, self._history) if path.is_file()
        ]

    @property
    def _shifts(self) -> Path:
        return self.folder / "shifts"

    @property
    def _learned(self) -> Path:
        return self.folder / "learned.sealed"

    @property
    def _history(self) -> Path:
        return self.folder / "history.sealed"

    @property
    def _key_path(self) -> Path:
        return self.folder / "vault.key"

    def _path(self, slot: str) -> Path:
        return self._shifts / f"{slot}.sealed"

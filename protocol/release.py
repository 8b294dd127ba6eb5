"""A release: the collective shift an edge builds its personal shift on, as one file.

Releases form a chain: each names the digest of the one before, and versions count up from 1.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.errors import InputError
from protocol.packing import ShiftHeader, pack, unpack
from protocol.shift import Shift
from protocol.shift_file import read_shift_file, sha256, write_shift_file

FILE_NAME = "release.safetensors"
_KIND = "release"


@dataclass(frozen=True)
class Release:
    """One release and all that can be said of it without loading a base model."""

    version: int
    """Counted from 1."""
    previous: str
    """Digest of the release before; empty for the first."""
    header: ShiftHeader
    shift: Shift
    sha256: str
    """Of the packed shift."""

    @classmethod
    def first(cls, shift: Shift, header: ShiftHeader) -> "Release":
        """Version 1 of a chain."""
        return cls(1, "", header, shift, sha256(pack(shift, header)))

    def next(self, shift: Shift, header: ShiftHeader) -> "Release":
        """The release after this one; raises InputError for another task or base model."""
        if (header.task, header.fingerprint) != (self.header.task, self.header.fingerprint):
            raise InputError("a release chain stays with one task and one base model")
        return Release(self.version + 1, self.digest, header, shift, sha256(pack(shift, header)))

    @property
    def digest(self) -> str:
        """SHA-256 over every field, the packed shift through its own hash."""
        return hashlib.sha256(json.dumps(self.fields(), sort_keys=True).encode()).hexdigest()

    def fields(self) -> dict[str, Any]:
        """The metadata, as JSON values."""
        shape = self.header.shape
        return {
            "version": self.version,
            "previous": self.previous,
            "fingerprint": self.header.fingerprint,
            "task": self.header.task,
            "layers": list(shape.layers),
            "positions": str(shape.positions),
            "rank": shape.rank,
            "hidden-size": shape.hidden_size,
            "rounds": self.header.round,
            "dtype": self.header.dtype,
            "sha256": self.sha256,
        }

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_shift_file(path, _KIND, pack(self.shift, self.header), self.fields())


def read_release(path: Path) -> Release:
    """The release in `path`.

    Raises InputError when the file is truncated, the shift does not match its hash, or the metadata
    contradicts the shift's own header.
    """
    packed, fields = read_shift_file(path, _KIND)
    version, previous = fields.get("version"), fields.get("previous")
    if type(version) is not int or version < 1 or not isinstance(previous, str):
        raise InputError(f"{path}: the release has no valid version or previous digest")
    try:
        shift, header = unpack(packed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    release = Release(version, previous, header, shift, sha256(packed))
    for name, value in release.fields().items():
        if fields.get(name) != value:
            raise InputError(f"{path}: {name} contradicts the shift's own header")
    return release

"""A packed shift with JSON metadata in one safetensors file, written whole or not at all.

Metadata: `kind` and `format` (what the file is, and its version), `sha256` of the packed shift,
`directions`, `people` and `members`, the SHA-256 of each that the file holds, and the caller's own fields.
Reading verifies all of them.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors import SafetensorError
from safetensors.numpy import save

from fedperfit.protocol.system.errors import InputError, MalformedFileError, MissingFileError
from fedperfit.protocol.system.files import write_atomic

FORMAT = 1
_TENSOR = "packed"
DIRECTIONS, PEOPLE, MEMBERS = "directions", "people", "members"
"""Names of what a file may hold beside its shift."""
_PARTS = (DIRECTIONS, PEOPLE, MEMBERS)
_METADATA = "fedperfit"


def shift_file(
    kind: str, packed: bytes, fields: dict[str, Any], parts: Mapping[str, bytes] | None = None
) -> bytes:
    """Encode a file of some kind.

    Args:
        kind: What the file is, e.g. `checkpoint`.
        packed: A shift as `protocol.shift.packing` encodes it.
        fields: JSON values to store beside it.
        parts: Encoded `directions`, `people` and `members` by name; an empty one is left out.
    """
    metadata = {**fields, "kind": kind, "format": FORMAT, "sha256": sha256(packed)}
    tensors = {_TENSOR: np.frombuffer(packed, np.uint8)}
    for name, part in (parts or {}).items():
        if part:
            metadata[name] = sha256(part)
            tensors[name] = np.frombuffer(part, np.uint8)
    encoded = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    data: bytes = save(tensors, metadata={_METADATA: encoded})
    return data


def write_shift_file(path: Path, kind: str, packed: bytes, fields: dict[str, Any]) -> None:
    """Write a file of some kind, whole or not at all.

    Args:
        path: File to write or replace.
        kind: What the file is, e.g. `checkpoint`.
        packed: A shift as `protocol.shift.packing` encodes it.
        fields: JSON values to store beside it.
    """
    write_atomic(path, shift_file(kind, packed, fields))


def read_shift_file(
    path: Path, kind: str, most: int | None = None
) -> tuple[bytes, dict[str, Any], dict[str, bytes]]:
    """Read and verify a file that `write_shift_file` or `shift_file` made.

    Args:
        path: File to read.
        kind: What the file must be.
        most: Largest size accepted, in bytes; no more of a larger file is read.

    Returns:
        The packed shift, the fields, and what stands beside the shift, by name.

    Raises:
        InputError: Naming the file, if it is missing, too large, malformed or does not match its hashes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(-1 if most is None else most + 1)
        if most is not None and len(data) > most:
            raise MalformedFileError(f"larger than the {most} bytes a {kind} may have")
        return parse_shift_file(data, kind)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except MalformedFileError as error:
        raise MalformedFileError(f"{path}: {error}") from None


def parse_shift_file(data: bytes, kind: str) -> tuple[bytes, dict[str, Any], dict[str, bytes]]:
    """Parse and verify the bytes of a file made by `shift_file`.

    Args:
        data: Content of the file.
        kind: What the file must be.

    Returns:
        The packed shift, the fields, and what stands beside the shift, by name.

    Raises:
        InputError: If the data is malformed or does not match its hashes.
    """
    try:
        tensors = dict(safetensors.deserialize(data))
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = json.loads(header["__metadata__"][_METADATA])
        packed = bytes(tensors[_TENSOR]["data"])
        parts = {name: bytes(tensors.pop(name)["data"]) for name in _PARTS if name in tensors}
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        reason = "".join(filter(str.isprintable, str(error))) or type(error).__name__
        raise MalformedFileError(f"truncated, or not a {kind} ({reason})") from None
    if not isinstance(metadata, dict) or metadata.get("kind") != kind:
        raise MalformedFileError(f"not a {kind}")
    if metadata.get("format") != FORMAT:
        raise MalformedFileError(f"{kind} of format {metadata.get('format')!r}, expected {FORMAT}")
    if set(tensors) != {_TENSOR} or set(header["__metadata__"]) != {_METADATA}:
        raise MalformedFileError(f"the {kind} holds unknown tensors or metadata")
    if metadata.get("sha256") != sha256(packed):
        raise MalformedFileError("the shift does not match its SHA-256")
    for name in _PARTS:
        if metadata.get(name) != (sha256(parts[name]) if parts.get(name) else None):
            raise MalformedFileError(f"the {name} do not match their SHA-256")
    return packed, metadata, parts


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()

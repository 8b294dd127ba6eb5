"""A packed shift with JSON metadata in one safetensors file, written whole or not at all.

Metadata: `kind` and `format` (what the file is, and its version), `sha256` of the packed shift, and the
caller's own fields. Reading verifies all of them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from protocol.errors import InputError
from protocol.files import write_atomic

FORMAT = 1
_TENSOR = "packed"
_METADATA = "fedperfit"


def write_shift_file(path: Path, kind: str, packed: bytes, fields: dict[str, Any]) -> None:
    """Write `packed` and `fields` (JSON values) as a file of this kind, e.g. `checkpoint`."""
    metadata = {**fields, "kind": kind, "format": FORMAT, "sha256": sha256(packed)}
    encoded = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    tensors = {_TENSOR: np.frombuffer(packed, np.uint8)}
    write_atomic(path, save(tensors, metadata={_METADATA: encoded}))


def read_shift_file(path: Path, kind: str) -> tuple[bytes, dict[str, Any]]:
    """The packed shift and the fields; raises InputError naming the file when anything is off."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA, ""))
            packed = file.get_tensor(_TENSOR).tobytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (SafetensorError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: truncated, or not a {kind} ({reason})") from None
    if not isinstance(metadata, dict) or metadata.get("kind") != kind:
        raise InputError(f"{path}: not a {kind}")
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: {kind} of format {metadata.get('format')}, expected {FORMAT}")
    if metadata.get("sha256") != sha256(packed):
        raise InputError(f"{path}: the shift does not match its SHA-256")
    return packed, metadata


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()

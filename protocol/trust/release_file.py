"""Reading a release's file: all in it is checked but its signer, whom `Release.check_signed_from` judges."""

import math
from pathlib import Path
from typing import Any

from fedperfit.protocol.people.people import People
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.packing import unpack
from fedperfit.protocol.shift.shift_file import DIRECTIONS, MEMBERS, PEOPLE, parse_shift_file, read_shift_file
from fedperfit.protocol.system.errors import InputError, MalformedFileError
from fedperfit.protocol.tasks import id_of_text
from fedperfit.protocol.trust.release import KIND, MAX_BYTES, Release
from fedperfit.protocol.trust.rotation import parse_rotations
from fedperfit.protocol.trust.signing import is_public_key
from fedperfit.protocol.trust.validity import parse_time

_ENVELOPE = {"kind", "format", "signatures"}


def parse_release(data: bytes) -> Release:
    """Parse the bytes of a release file; whether to trust the signer, `check_signed_from` decides.

    Raises:
        MalformedFileError: It is truncated or too large, the shift does not match its hash, the metadata
            contradict the shift's own header or the chain, or a field is missing, unknown or malformed.
    """
    if len(data) > MAX_BYTES:
        raise MalformedFileError(f"larger than the {MAX_BYTES} bytes a release may have")
    return _release(*parse_shift_file(data, KIND))


def read_release(path: Path) -> Release:
    """Read a release file and check all in it but its signer, whom `Release.check_signed_from` judges.

    Args:
        path: File of one release, `*.safetensors`.

    Raises:
        InputError: Naming the file: it is missing, truncated or too large, the shift does not match its
            hash, the metadata contradict the shift's own header or the chain, or a field is missing,
            unknown or malformed.
    """
    content = read_shift_file(path, KIND, MAX_BYTES)
    try:
        return _release(*content)
    except InputError as error:
        raise MalformedFileError(f"{path}: {error}") from None


def _release(packed: bytes, fields: dict[str, Any], parts: dict[str, bytes]) -> Release:
    _, header = unpack(packed)
    edit, crowd, members = (parts.get(name, b"") for name in (DIRECTIONS, PEOPLE, MEMBERS))
    if members:
        Directory.from_bytes(members)
    if crowd:
        People.from_bytes(crowd).check(header)
    if edit and Directions.from_bytes(edit).neutral.shape[1] != header.shape.hidden_size:
        raise MalformedFileError("its directions are of another size than its shift")
    chain, epsilon = fields.get("chain"), fields.get("epsilon")
    if not (isinstance(chain, list) and all(map(is_public_key, chain)) and len(set(chain)) == len(chain)):
        raise MalformedFileError("its chain is not a list of distinct digests")
    if fields.get("version") != len(chain) + 1 or type(fields["version"]) is not int:
        raise MalformedFileError(f"its version is not explained by a chain of {len(chain)} earlier releases")
    if epsilon is not None and not (type(epsilon) is float and math.isfinite(epsilon) and epsilon >= 0):
        raise MalformedFileError("its epsilon is not a number of at least 0")
    delta = fields.get("delta")
    if "delta" in fields and not (epsilon is not None and type(delta) is float and 0 < delta < 1):
        raise MalformedFileError("its delta is not a number above 0 and below 1 beside an epsilon")
    if not is_public_key(fields.get("key")):
        raise MalformedFileError("its key is not a public key")
    signatures = fields.get("signatures")
    if not isinstance(signatures, dict) or not all(isinstance(value, str) for value in signatures.values()):
        raise MalformedFileError("its signatures are malformed")
    if parse_time(fields.get("issued")) >= parse_time(fields.get("expires")):
        raise MalformedFileError("it expires before it was issued")
    text = fields.get("task-text", "")
    if text:
        _check_task(text, header.task)
    release = Release(
        *(tuple(chain), header, packed, fields["issued"], fields["expires"], epsilon, fields["key"]),
        delta=delta,
        edit=edit,
        crowd=crowd,
        members=members,
        task_text=text,
        rotations=parse_rotations(fields.get("rotations"), len(chain) + 1),
        signatures=signatures,
    )
    expected = release.fields()
    for name in sorted(set(fields) - _ENVELOPE | set(expected)):
        if name not in expected:
            raise MalformedFileError(f"it has an unknown field {name!r}")
        if fields.get(name) != expected[name]:
            raise MalformedFileError(f"{name} contradicts the shift's own header")
    return release


def _check_task(text: Any, name: str) -> None:
    """Raise MalformedFileError unless a text is the file of the task that a header names."""
    if not isinstance(text, str):
        raise MalformedFileError("its task-text is not a text")
    try:
        found = id_of_text(text)
    except InputError as error:
        raise MalformedFileError(f"its task-text is not the file of a task ({error})") from None
    if found != name:
        raise MalformedFileError(f"its task-text is that of task {found!r}, not of {name!r}")

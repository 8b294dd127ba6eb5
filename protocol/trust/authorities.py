"""The certificate authorities under which a cloud is reached, told to its edges by its release key.

While an authority is changed, both are told. Statements are numbered, and an edge never goes back to an
earlier one.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from typing_extensions import TypedDict

from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError, MalformedFileError
from fedperfit.protocol.trust.rotation import Rotation, followed, parse_rotations
from fedperfit.protocol.trust.signing import SigningKey, signed_by

FILE_NAME = "authorities.json"
"""Name of the statement's file."""
PATH = "/authorities.json"
"""Path of the cloud's address at which it is to be had."""
MAX_BYTES = 1 << 18
"""Largest statement accepted, in bytes."""
_KIND, _FORMAT = "authorities", 1
_MOST = 8
_LAST_VERSION = 1 << 31


@dataclass(frozen=True)
class Authorities:
    """What a cloud says of its authorities, verified."""

    number: int
    """Number of the statement, counted from 1."""
    certificates: tuple[str, ...]
    """Certificates of the authorities, PEM."""

    @property
    def pem(self) -> str:
        """All certificates, one after the other."""
        return "".join(self.certificates)


def sign_authorities(
    stated: Authorities, key: SigningKey, rotations: Sequence[Rotation] = ()
) -> dict[str, Any]:
    """Sign a statement.

    Args:
        stated: The statement.
        key: Signing key in use.
        rotations: All rotations of keys so far.

    Returns:
        JSON values: the statement, the rotations, and the signature.
    """
    fields = {
        "kind": _KIND,
        "format": _FORMAT,
        "number": stated.number,
        "certificates": list(stated.certificates),
        "rotations": [asdict(rotation) for rotation in rotations],
    }
    return {**fields, "signature": key.sign(_KIND, fields)}


class _Numbered(TypedDict):
    number: int


def read_number(path: Path) -> int:
    """Read the number of a statement that is on file, whoever signed it.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, or no statement.
    """
    return read_form(path, _Numbered)["number"]


def parse_authorities(data: bytes, trusted: str) -> Authorities:
    """Read and verify a statement.

    Args:
        data: JSON values as `sign_authorities` gives them.
        trusted: The cloud's public key that is in force, as far as the edge knows; rotations from there on
            are followed.

    Raises:
        InputError: If it is malformed, or not signed by that key or one that it was rotated to.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedFileError("not a statement of authorities") from None
    fields = {"kind", "format", "number", "certificates", "rotations", "signature"}
    if not isinstance(values, dict) or set(values) != fields:
        raise MalformedFileError("not a statement of authorities")
    signature = values.pop("signature")
    if (values["kind"], values["format"]) != (_KIND, _FORMAT):
        raise MalformedFileError(f"not a statement of authorities of format {_FORMAT}")
    key = followed(trusted, parse_rotations(values["rotations"], _LAST_VERSION))
    if not signed_by(key, _KIND, values, signature):
        raise InputError("the authorities are not signed by the cloud's key")
    number, certificates = values["number"], values["certificates"]
    if type(number) is not int or number < 1:
        raise MalformedFileError("the statement of authorities has no number")
    if not isinstance(certificates, list) or not 1 <= len(certificates) <= _MOST:
        raise MalformedFileError(f"expected 1 to {_MOST} authorities")
    for certificate in certificates:
        _check(certificate)
    return Authorities(number, tuple(certificates))


def _check(certificate: object) -> None:
    try:
        if not isinstance(certificate, str):
            raise TypeError
        x509.load_pem_x509_certificate(certificate.encode())
    except (TypeError, ValueError):
        raise MalformedFileError("an authority is not a certificate in PEM form") from None

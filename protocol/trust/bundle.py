"""An invitation: all that a person's machine needs to join a cloud, in one secret JSON file.

It holds no key of the node's: the machine makes that itself, and has it registered once, with the token.
"""

import hashlib
import json
import os
import re
import stat
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_atomic
from fedperfit.protocol.trust.policy import verify_policy
from fedperfit.protocol.trust.signing import is_public_key

FORMAT = 3
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""Pattern of a client's name."""
_ADDRESS = re.compile(r"[A-Za-z0-9.:\[\]-]+:[0-9]{1,5}")
_TOKEN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, repr=False)
class Bundle:
    """The invitation of one client."""

    name: str
    """Name of the client."""
    address: str
    """Address of the cloud, host:port."""
    authority: str
    """Certificate of the cloud's authority, PEM."""
    token: str
    """Secret that the cloud takes once, with the public key of a node."""
    release_key: str
    """Public key that signs releases; the edge pins it."""
    task: str
    """Name of a task that ships, or the text of the file of another."""
    base_model: str
    """Name of the base model; the machine may have it in a folder of another name."""
    fingerprint: str
    """Fingerprint of the base model."""
    policy: str
    """What the cloud may ask, signed: JSON as `fedperfit.protocol.trust.policy` has it."""
    functional: str = ""
    """Functional fingerprint of the base model, by which machines may store it in another precision; empty
    where the cloud wants the very same files."""

    @property
    def signed_policy(self) -> Any:
        """JSON values of the signed policy, not yet verified."""
        return json.loads(self.policy)

    def write(self, path: Path) -> None:
        """Write the invitation to `path`, readable by its owner only."""
        values = {"format": FORMAT, **asdict(self)}
        write_atomic(path, (json.dumps(values, indent=1) + "\n").encode())


def identify_bundle(path: Path) -> tuple[str, str]:
    """Read whose invitation a file is, of whatever format, and its digest, by which a folder knows it again.

    Raises:
        InputError: Naming the file, if it is malformed or others may read it.
    """
    values = _values(path)
    values.pop("format", None)
    name = values.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(f"{path}: name={name!r} is not a client's name")
    return name, hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()


def read_bundle(path: Path) -> Bundle:
    """Read an invitation.

    Raises:
        InputError: Naming the file, if it is malformed or others may read it.
    """
    values = _values(path)
    number = values.pop("format", None)
    if number in (1, 2):
        raise InputError(
            f"{path}: an enrolment of format {number}, with a key that the cloud made; ask for a new one"
        )
    if number != FORMAT:
        raise InputError(f"{path}: not an enrolment of format {FORMAT}")
    values = {"functional": "", **values}
    names = {field.name for field in fields(Bundle)}
    if set(values) != names or not all(isinstance(value, str) for value in values.values()):
        raise InputError(f"{path}: an enrolment has the texts {', '.join(sorted(names))}")
    bundle = Bundle(**values)
    if not NAME.fullmatch(bundle.name):
        raise InputError(f"{path}: name={bundle.name!r} is not a client's name")
    if not _ADDRESS.fullmatch(bundle.address):
        raise InputError(f"{path}: address={bundle.address!r}: expected host:port")
    if not _TOKEN.fullmatch(bundle.token):
        raise InputError(f"{path}: token is not 64 hexadecimal digits")
    if not is_public_key(bundle.release_key):
        raise InputError(f"{path}: release_key is not a public key")
    try:
        policy = verify_policy(bundle.signed_policy, bundle.release_key)
    except RecursionError:
        raise InputError(f"{path}: its policy is nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if (policy.task, policy.fingerprint) != (bundle.task, bundle.fingerprint):
        raise InputError(f"{path}: its policy is for another task or base model")
    return bundle


def _values(path: Path) -> dict[str, Any]:
    values = read_json(path)
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError(f"{path}: others may read this enrolment; chmod 600 it")
    if not isinstance(values, dict):
        raise InputError(f"{path}: not an enrolment of format {FORMAT}")
    return values

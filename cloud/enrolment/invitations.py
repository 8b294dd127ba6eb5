"""Invitations: who may have a node's key registered, until when, and which key came.

invitations/NAME.json    one per invited client, kept until the client is unenrolled
.enrolment.lock          held by whoever changes invitations or enrolled nodes
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.files import sweep, write_json

_LOCK = ".enrolment.lock"
_LOCK_SECONDS = 90.0
"""Longest wait for another change, which may ask the SuperLink."""


@dataclass(frozen=True)
class Invitation:
    """An invitation, as the cloud keeps it."""

    name: str
    """Name of the client."""
    token: str
    """SHA-256 of the token, which only the client has."""
    expires: str
    """Time until which a key may come: ISO 8601, UTC."""
    approve: bool = False
    """Whether somebody at the cloud must approve of the key."""
    key: str = ""
    """Public key that came with the token; empty before. No other key comes by this invitation."""
    sums: str = ""
    """Public keys for secure sums that came with it; empty of a machine without."""

    @classmethod
    def new(cls, name: str, expires: datetime, *, approve: bool) -> tuple[Self, str]:
        """Make an invitation.

        Args:
            name: Name of the client.
            expires: Time until which a key may come.
            approve: Whether somebody must approve of the key.

        Returns:
            The invitation, and its token.
        """
        token = secrets.token_hex(32)
        return cls(name, _hash(token), expires.strftime("%Y-%m-%dT%H:%M:%SZ"), approve), token

    def opened_by(self, token: str) -> bool:
        """Return whether a token is this invitation's."""
        return hmac.compare_digest(_hash(token), self.token)

    def open_at(self, now: datetime) -> bool:
        """Return whether a key may still come at the time `now`."""
        return not self.key and now < datetime.fromisoformat(self.expires)

    def taken_by(self, key: str, sums: str = "") -> Self:
        """Return the invitation as it is after a key has come, perhaps with keys for secure sums."""
        return replace(self, key=key, sums=sums)


def read_invitation(home: CloudHome, name: str) -> Invitation | None:
    """Read the invitation of a client; None if there is none.

    Raises:
        MalformedFileError: If its file is broken.
    """
    path = _path(home, name)
    if not path.exists():
        return None
    return read_form(path, Invitation)


def invitations(home: CloudHome) -> list[Invitation]:
    """List all invitations, by name."""
    names = sorted(path.stem for path in home.invitations.glob("*.json"))
    read = (read_invitation(home, name) for name in names)
    return [invitation for invitation in read if invitation is not None]


def write_invitation(home: CloudHome, invitation: Invitation) -> None:
    """Keep an invitation in place of an earlier one of the same client."""
    home.invitations.mkdir(exist_ok=True, mode=0o700)
    write_json(_path(home, invitation.name), asdict(invitation))


def revoke_invitation(home: CloudHome, name: str) -> None:
    """Remove a client's invitation, if there is one: its token opens nothing any more."""
    _path(home, name).unlink(missing_ok=True)


@contextmanager
def changing(home: CloudHome) -> Iterator[datetime]:
    """Keep everybody else from changing invitations and enrolled nodes; yields the time, in UTC.

    Raises:
        RunFailed: If somebody else does not end.
    """
    try:
        with FileLock(home.folder / _LOCK, timeout=_LOCK_SECONDS):
            sweep(home.invitations)
            sweep(home.nodes)
            yield datetime.now(UTC)
    except Timeout:
        raise RunFailed(f"{home.folder}: another enrolment does not end") from None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _path(home: CloudHome, name: str) -> Path:
    return home.invitations / f"{name}.json"

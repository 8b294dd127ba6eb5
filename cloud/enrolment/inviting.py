"""Inviting a person's machine: a bundle to hand over, and what the cloud keeps of it."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedperfit.cloud.deployment.certificate_authority import authorities
from fedperfit.cloud.deployment.home import CloudHome, read_cloud
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.enrolment.invitations import (
    Invitation,
    changing,
    read_invitation,
    revoke_invitation,
    write_invitation,
)
from fedperfit.cloud.enrolment.policy import offered
from fedperfit.protocol.model.base_model import load, read_card
from fedperfit.protocol.model.functional import functional_fingerprint
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.bundle import NAME, Bundle


def enroll(
    home: CloudHome,
    name: str,
    out: Path,
    *,
    approve: bool | None = None,
    days: int | None = None,
    any_storage: bool = False,
) -> Invitation:
    """Invite a client and write its bundle; an invitation that expired unused is replaced.

    Args:
        home: The cloud.
        name: Name of the client.
        out: File of the bundle, which must not exist.
        approve: Whether somebody must approve of the key that comes; None as the settings say.
        days: Days until which it must come; None as the settings say.
        any_storage: Whether its machine may store the base model in another precision; loads the model.

    Returns:
        The invitation.

    Raises:
        InputError: If the name is bad or taken, the file exists, or the settings leave the shape of the shift
            open.
    """
    given = {"approve": approve, "invitation_days": days}
    settings = read_cloud(home).replace(**{key: value for key, value in given.items() if value is not None})
    if not NAME.fullmatch(name):
        raise InputError(
            f"name={name!r}: expected at most 64 of a-z, A-Z, 0-9 and ._-, not beginning with . or -"
        )
    if os.path.lexists(out):
        raise InputError(f"{out}: already exists")
    signing = CloudReleases(home.folder).key()
    policy = offered(home, settings, signing)
    expires = datetime.now(UTC) + timedelta(days=settings.invitation_days)
    invitation, token = Invitation.new(name, expires, approve=settings.approve)
    bundle = Bundle(
        name=name,
        address=settings.address,
        authority="".join(authorities(home)),
        token=token,
        release_key=signing.public,
        task=settings.task,
        base_model=settings.base_model,
        fingerprint=read_card(settings.base_model).fingerprint,
        policy=json.dumps(policy),
        functional=functional_fingerprint(load(settings.base_model)).text() if any_storage else "",
    )
    with changing(home) as now:
        _check_free(home, name, now)
        write_invitation(home, invitation)
        try:
            bundle.write(out)
        except OSError:
            revoke_invitation(home, name)
            raise
    return invitation


def _check_free(home: CloudHome, name: str, now: datetime) -> None:
    if home.node(name).exists():
        raise InputError(f"{name} is already enrolled; unenroll it first")
    earlier = read_invitation(home, name)
    if earlier is not None and (earlier.key or earlier.open_at(now)):
        raise InputError(f"{name} is already invited; unenroll it first")

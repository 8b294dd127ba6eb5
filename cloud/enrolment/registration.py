"""Enrolment: inviting a person's machine, registering the key that it made, and taking its right away.

A client is invited, then perhaps waits for approval, then is enrolled. The order of what is written makes
every kill harmless: a token is bound to the first key that comes with it before that key is registered, a
key is looked for at the SuperLink before it is registered, and who is being unenrolled is marked as such
first. So the same request or command goes on where a killed one stopped, and `repair` does at every start.
Where registering a key failed for good, its token is free again.
"""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from fedperfit.cloud.deployment.home import CloudHome, read_cloud
from fedperfit.cloud.deployment.up import wait_for_superlink
from fedperfit.cloud.enrolment.invitations import (
    Invitation,
    changing,
    invitations,
    read_invitation,
    revoke_invitation,
    write_invitation,
)
from fedperfit.cloud.enrolment.superlink_nodes import find_node, register_node, unregister_node
from fedperfit.protocol.secure_sums.keys import Directory, PublicKeys
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.trust.bundle import NAME
from fedperfit.protocol.trust.enrolment import EnrolmentReply, EnrolmentRequest
from fedperfit.protocol.trust.node_key import fingerprint

_UNKNOWN = "this is not an invitation of this cloud, or it was taken back"


class Record(TypedDict):
    """What is on file of an enrolled client."""

    name: str
    node: Annotated[str, Field(pattern=r"^[0-9]+\z")]
    key: str
    sums: NotRequired[str]
    """Public keys for secure sums, of a machine that has some."""
    leaving: NotRequired[bool]
    """Whether it is being unenrolled."""


def redeem(home: CloudHome, request: EnrolmentRequest) -> EnrolmentReply:
    """Register the key of an invited client, or have it wait for approval; the same request may come again.

    Args:
        home: The cloud, which must be up.
        request: What the client's machine sent.

    Raises:
        RunFailed: If the SuperLink does not register the key; then the token is free again, and the machine
            may ask again, also with another key.
    """
    known = read_invitation(home, request.name) if NAME.fullmatch(request.name) else None
    if known is None or not known.opened_by(request.token):
        return _refused(_UNKNOWN)  # nobody without a token waits for the lock, or holds it
    with changing(home) as now:
        invitation = read_invitation(home, request.name)
        reason = _reason_against(invitation, request, now) or _reason_against_key(home, request)
        if invitation is None or reason:
            return _refused(reason)
        if not invitation.key:
            invitation = invitation.taken_by(request.key, request.sums)
            write_invitation(home, invitation)
        if home.node(request.name).exists():
            return EnrolmentReply(state="enrolled")
        if invitation.approve:
            return EnrolmentReply(state="waiting")
        try:
            _register(home, invitation)
        except RunFailed:
            _free(home, invitation)
            raise
        return EnrolmentReply(state="enrolled")


def waiting(home: CloudHome) -> dict[str, str]:
    """Return the fingerprints of the keys that wait for approval, by client."""
    return {
        invitation.name: fingerprint(invitation.key)
        for invitation in invitations(home)
        if invitation.key and invitation.approve and not home.node(invitation.name).exists()
    }


def approve(home: CloudHome, name: str, expected: str) -> None:
    """Register the key that waits for approval.

    Args:
        home: The cloud, which must be up.
        name: Name of the client.
        expected: Fingerprint of the key, as the client's owner sees it.

    Raises:
        InputError: If the client does not wait, its key is another one, or the cloud is not up.
        RunFailed: If the SuperLink does not register the key; the client waits on then.
    """
    with changing(home):
        wait_for_superlink(home, read_cloud(home))
        found = waiting(home).get(name)
        invitation = read_invitation(home, name) if found else None
        if invitation is None:
            raise InputError(f"{name} does not wait for approval")
        if found != expected:
            raise InputError(f"the key of {name} has the fingerprint {found}, not {expected}")
        _register(home, invitation)


def unenroll(home: CloudHome, name: str) -> None:
    """Take back a client's invitation, and its node's right to take part.

    Args:
        home: The cloud, which must be up if the client's key has come.
        name: Name of the client.

    Raises:
        InputError: If it is neither invited nor enrolled, or the cloud is not up.
        RunFailed: If the SuperLink does not unregister the node.
    """
    with changing(home):
        record, invitation = home.node(name), read_invitation(home, name)
        if not record.exists() and invitation is None:
            raise InputError(f"{name} is not enrolled")
        if record.exists():
            wait_for_superlink(home, read_cloud(home))
            write_json(record, {**read_form(record, Record), "leaving": True})
            _leave(home, name)
        elif invitation is not None and invitation.key:
            wait_for_superlink(home, read_cloud(home))
            node = find_node(home, invitation.key)  # registered, if a registration was killed
            if node is not None:
                unregister_node(home, node)
        revoke_invitation(home, name)


def repair(home: CloudHome) -> None:
    """Finish what was killed: record registered nodes, and unregister those that were leaving.

    The token of a key that never came to be registered is free again.

    Args:
        home: The cloud, which must be up.

    Raises:
        RunFailed: If the SuperLink does not do its part.
    """
    with changing(home):
        for path in sorted(home.nodes.glob("*.json")):
            if read_form(path, Record).get("leaving"):
                _leave(home, path.stem)
                revoke_invitation(home, path.stem)
        for invitation in invitations(home):
            if invitation.key and not home.node(invitation.name).exists():
                node = find_node(home, invitation.key)
                if node is not None:
                    _record(home, invitation, node)
                elif not invitation.approve:
                    write_invitation(home, invitation.taken_by(""))


def enrolled(home: CloudHome) -> dict[int, str]:
    """Return the names of all enrolled clients by node id."""
    return {int(record["node"]): record["name"] for record in _enrolled(home)}


def keys_for_sums(home: CloudHome) -> Directory:
    """Return the keys for secure sums of all enrolled clients that came with some.

    Raises:
        InputError: If some are none; it names the client.
    """
    keys = {}
    for record in _enrolled(home):
        try:
            if "sums" in record:
                keys[record["name"]] = PublicKeys.from_hex(record["sums"])
        except InputError as error:
            raise InputError(f"{record['name']}: {error}; unenroll it") from None
    return Directory(keys)


def _enrolled(home: CloudHome) -> list[Record]:
    return [record for record in _all_records(home) if not record.get("leaving")]


def _all_records(home: CloudHome) -> list[Record]:
    return [read_form(path, Record) for path in sorted(home.nodes.glob("*.json"))]


def _reason_against(invitation: Invitation | None, request: EnrolmentRequest, now: datetime) -> str:
    """Tell why a request is refused; empty if it is not. Only who has the token learns more than that."""
    if invitation is None or not invitation.opened_by(request.token):
        return _UNKNOWN
    if invitation.key and (invitation.key, invitation.sums) != (request.key, request.sums):
        return "this invitation was used already, with another key"
    if not invitation.key and not invitation.open_at(now):
        return f"this invitation expired at {invitation.expires}; ask for a new one"
    try:
        request.check_proof()
        if request.sums:
            PublicKeys.from_hex(request.sums)
    except InputError as error:
        return str(error)
    return ""


def _reason_against_key(home: CloudHome, request: EnrolmentRequest) -> str:
    """Tell that a key is another client's; empty if it is not.

    Such a key is known to the SuperLink, and `repair` would take it for one that was approved.
    """
    names = {record["name"] for record in _all_records(home) if record["key"] == request.key}
    names |= {invitation.name for invitation in invitations(home) if invitation.key == request.key}
    return "this key is another client's: every client has its own" if names - {request.name} else ""


def _refused(reason: str) -> EnrolmentReply:
    return EnrolmentReply(state="refused", reason=reason)


def _register(home: CloudHome, invitation: Invitation) -> None:
    node = find_node(home, invitation.key)  # there already, if a registration was killed
    if node is None:
        node = register_node(home, invitation.key)
    _record(home, invitation, node)


def _free(home: CloudHome, invitation: Invitation) -> None:
    """Free a token of its key, where the SuperLink says that it does not know the key; else `repair` does."""
    with suppress(RunFailed):
        if find_node(home, invitation.key) is None:
            write_invitation(home, invitation.taken_by(""))


def _record(home: CloudHome, invitation: Invitation, node: int) -> None:
    values = {"name": invitation.name, "node": str(node), "key": invitation.key}
    sums = {"sums": invitation.sums} if invitation.sums else {}
    write_json(home.node(invitation.name), values | sums)


def _leave(home: CloudHome, name: str) -> None:
    record = read_form(home.node(name), Record)
    if find_node(home, record["key"]) is not None:  # it is not, if an earlier attempt was killed
        unregister_node(home, int(record["node"]))
    home.node(name).unlink()

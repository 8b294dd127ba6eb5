"""Learning of the cloud's certificate authorities, so that the cloud can change its own.

A statement of them is fetched under the authorities trusted so far; what counts is that the cloud's release
key signed it.
"""

import ssl
from collections.abc import Callable
from http import HTTPStatus

from fedperfit.edge.deployment.home import Home, cloud_address, read_settings
from fedperfit.edge.enrolment.asking import NoAnswer, answer
from fedperfit.edge.releases.trusted_keys import trusted_keys
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.trust.authorities import MAX_BYTES, PATH, parse_authorities, read_number

_SECONDS = 10.0


class NoContact(InputError):
    """The cloud does not answer; the text says where, and why."""


def accept_authorities(home: Home, data: bytes) -> bool:
    """Trust the authorities of a statement, and no others any more.

    Args:
        home: The person's folder.
        data: The statement, signed.

    Returns:
        Whether they differ from those trusted so far; a statement that is not newer changes nothing.

    Raises:
        InputError: If it is malformed, or not signed by the cloud's key.
    """
    stated = parse_authorities(data, trusted_keys(home.releases, read_settings(home).release_key)[-1])
    known = read_number(home.authorities) if home.authorities.exists() else 0
    if stated.number <= known:
        return False
    changed = home.authority.read_bytes() != stated.pem.encode()
    write_atomic(home.authority, stated.pem.encode())
    write_atomic(home.authorities, data)
    return changed


def fetch_authorities(home: Home) -> bool:
    """Ask the cloud for its statement, and accept it; return whether other authorities are trusted now.

    Args:
        home: The person's folder.

    Raises:
        NoContact: If the cloud does not answer.
        InputError: If what it says is not such a statement.
    """
    address = cloud_address(home)
    trusted = ssl.create_default_context(cafile=str(home.authority))
    data = b""
    try:
        with answer(home, address, trusted, "GET", PATH, _SECONDS) as response:
            if response.status_code != HTTPStatus.OK:
                return False
            for part in response.iter_raw():
                data += part
                if len(data) > MAX_BYTES:
                    raise InputError("the statement of authorities is too large")
    except NoAnswer as error:
        raise NoContact(f"{address}: {error}") from None
    return accept_authorities(home, data)


def learn_authorities(home: Home, say: Callable[[str], None]) -> bool:
    """Do the same for an edge that is on, which goes on with those it trusts whatever the cloud says or not.

    Args:
        home: The person's folder.
        say: Shows a line to the owner.
    """
    try:
        changed = fetch_authorities(home)
    except NoContact as error:
        say(f"no contact with your cloud at {error}; this edge goes on, and keeps trying (see doctor)")
        return False
    except InputError as error:
        say(f"the cloud's word on its certificate authorities was refused: {error}")
        return False
    if changed:
        say("your cloud changed its certificate authorities, by a word that its release key signed")
    return changed

"""The certificate authority of a cloud, and changing it without losing an edge.

tls/ca.crt, ca.key              the authority that issued the server's certificate
tls/next.crt, next.key          the one that issues it from some day on
tls/next.json                   that day; written last, and removed first
tls/authorities.json            both, told to edges and signed by the key that signs releases
.tls.lock                       held by the writer of any of these

Edges fetch the statement while the earlier authority is in force, and trust both from then on. On the first
`up` after the day the later one takes over, and the next statement names it alone. A kill leaves one of these
states, or a change that the next `up` makes again.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from filelock import FileLock
from typing_extensions import TypedDict

from fedperfit.cloud.deployment.home import CloudHome, write_server_certificate
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import sweep, write_atomic, write_json
from fedperfit.protocol.trust.authorities import (
    FILE_NAME,
    Authorities,
    parse_authorities,
    read_number,
    sign_authorities,
)
from fedperfit.protocol.trust.certificates import Certificate, new_authority


def authorities(home: CloudHome) -> list[str]:
    """List the certificates, PEM, that edges are to trust: two while the authority is changed."""
    names = ["ca.crt", *(["next.crt"] if next_day(home) is not None else [])]
    return [(home.tls / name).read_text() for name in names]


def rotate_authority(home: CloudHome, days: int) -> datetime:
    """Make a new authority, and tell edges of it; it takes over on the first `up` after some days.

    Args:
        home: The cloud.
        days: Days that edges have to learn of it.

    Returns:
        The time from which it takes over.

    Raises:
        InputError: If the authority is being changed already.
    """
    with _writing(home):
        earlier = next_day(home)
        if earlier is not None:
            raise InputError(
                f"the authority is being changed already; the new one takes over after {earlier}"
            )
        day = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
        authority = new_authority("fedperfit")
        write_atomic(home.tls / "next.key", authority.key)
        write_atomic(home.tls / "next.crt", authority.certificate)
        write_json(home.tls / "next.json", {"from": day.isoformat()})
    publish_authorities(home)
    return day


def take_over(home: CloudHome, settings: CloudSettings) -> bool:
    """Let the new authority take over if its day has come; the cloud must not be up.

    Args:
        home: The cloud.
        settings: Its settings.

    Returns:
        Whether it did.
    """
    with _writing(home):
        day = next_day(home)
        if day is None or datetime.now(UTC) < day:
            return False
        tls = home.tls
        authority = Certificate((tls / "next.crt").read_bytes(), (tls / "next.key").read_bytes())
        write_server_certificate(home, settings, authority)
        write_atomic(tls / "ca.key", authority.key)
        write_atomic(tls / "ca.crt", authority.certificate)
        for name in ("next.json", "next.crt", "next.key"):
            (tls / name).unlink()
        return True


def renew_certificate(home: CloudHome, settings: CloudSettings) -> datetime:
    """Issue the server's certificate anew, under the authority in force; return until when it is valid.

    Args:
        home: The cloud.
        settings: Its settings.
    """
    tls = home.tls
    with _writing(home):
        authority = Certificate((tls / "ca.crt").read_bytes(), (tls / "ca.key").read_bytes())
        write_server_certificate(home, settings, authority)
        return valid_until(tls / "server.crt")


def mend_certificate(home: CloudHome, settings: CloudSettings) -> None:
    """Issue the server's certificate anew where a kill or a full disk left it beside another one's key.

    Args:
        home: The cloud.
        settings: Its settings.
    """
    try:
        pair = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pair.load_cert_chain(home.tls / "server.crt", home.tls / "server.key")
    except OSError as error:  # what else is wrong with these files, the programs that read them tell
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            renew_certificate(home, settings)


def publish_authorities(home: CloudHome) -> None:
    """Sign the statement of the authorities, under a new number if it says something new.

    Args:
        home: The cloud.
    """
    from fedperfit.cloud.deployment.release_store import CloudReleases

    releases = CloudReleases(home.folder)
    key, latest = releases.key(), releases.latest()
    rotations = latest.rotations if latest is not None else ()
    path = home.tls / FILE_NAME
    with _writing(home):
        certificates, number = tuple(authorities(home)), 1
        if path.exists():
            try:
                last = parse_authorities(path.read_bytes(), key.public)
            except InputError:  # the signing key was changed since
                number = read_number(path) + 1
            else:
                if last.certificates == certificates:
                    return
                number = last.number + 1
        write_json(path, sign_authorities(Authorities(number, certificates), key, rotations))


def valid_until(path: Path) -> datetime:
    """Return until when a certificate is valid, in UTC."""
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc


@contextmanager
def _writing(home: CloudHome) -> Iterator[None]:
    """Keep everybody else from writing certificates, and remove what killed writers left, such as keys."""
    with FileLock(home.folder / ".tls.lock"):
        sweep(home.tls)
        if next_day(home) is None:
            for name in ("next.crt", "next.key"):
                (home.tls / name).unlink(missing_ok=True)
        yield


_Change = TypedDict("_Change", {"from": datetime})
"""Time from which the next authority takes over."""


def next_day(home: CloudHome) -> datetime | None:
    """Return the time from which a new authority takes over; None if the authority is not being changed."""
    path = home.tls / "next.json"
    return read_form(path, _Change)["from"] if path.exists() else None

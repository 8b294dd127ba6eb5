"""Checks of files: who may read them, how their folder is named, until when certificates are valid."""

import os
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote

from cryptography import x509

from fedperfit.protocol.doctor.findings import Finding, ok, warning, wrong
from fedperfit.protocol.system.errors import count_of, printable

_LONGEST_SOCKET = 100
"""Bytes of the longest path of a Unix socket that is used."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def secrets(paths: Iterable[Path]) -> Iterator[Finding]:
    """Check that files and folders are their owner's alone; what is not there is not looked at.

    Args:
        paths: Files and folders that nobody else may open.
    """
    there = [path for path in paths if path.exists()]
    bad = 0
    for path in there:
        about = path.stat()
        check = f"access to {path.name}"
        if about.st_uid != os.geteuid():
            bad += 1
            said = f"belongs to account {about.st_uid}, not to this one"
            yield wrong(check, said, f"chown {os.geteuid()} {quote(str(path))}")
        elif about.st_mode & _OTHERS:
            bad += 1
            said = f"is open to others (mode {stat.S_IMODE(about.st_mode):o})"
            yield wrong(check, said, f"chmod go-rwx {quote(str(path))}")
    if not bad:
        yield ok("access to secrets", f"{len(there)} files and folders are this account's alone")


def folder_name(folder: Path, sockets: Iterable[Path]) -> Iterator[Finding]:
    """Check that programs can work in a folder of this name.

    Args:
        folder: The folder.
        sockets: Unix sockets in it that are opened by their whole path.
    """
    name = str(folder.absolute())
    if printable(name) != name:
        yield wrong("folder's name", "has characters that cannot be shown", "rename it; stop all first")
        return
    longest = max((len(os.fsencode(path.absolute())) for path in sockets), default=0)
    if longest > _LONGEST_SOCKET:
        said = f"a socket in it would have a path of {longest} bytes, at most {_LONGEST_SOCKET} are possible"
        yield wrong("folder's name", said, "move it to a folder with a shorter path; stop all first")
        return
    yield ok("folder's name", name)


def certificates(path: Path, what: str, *, days: int, advice: str) -> Iterator[Finding]:
    """Check until when the certificates in a file are valid.

    Args:
        path: File with certificates, PEM.
        what: What they are.
        days: Time before their end from which on there is a warning.
        advice: What to do then.
    """
    try:
        held = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        yield wrong(what, f"{path} cannot be read", "take it from your backup")
        return
    now = datetime.now(UTC)
    until = max(certificate.not_valid_after_utc for certificate in held)
    said = f"valid until {until:%Y-%m-%d}"
    if min(certificate.not_valid_before_utc for certificate in held) > now:
        yield wrong(what, "not valid yet", "set this machine's clock")
    elif until <= now:
        yield wrong(what, f"ended on {until:%Y-%m-%d}", advice)
    elif until <= now + timedelta(days=days):
        yield warning(what, said, advice)
    else:
        yield ok(what, said)


def age(path: Path, what: str, *, days: int, advice: str) -> Finding:
    """Check how old a key is, by the time at which its file was written.

    Args:
        path: File of the key.
        what: What it is.
        days: Age from which on there is a warning.
        advice: What to do then.
    """
    made = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    old = (datetime.now(UTC) - made).days
    said = f"made {count_of(old, 'day')} ago"
    return warning(what, said, advice) if old > days else ok(what, said)

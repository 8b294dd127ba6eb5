"""Checks of a cloud's folder: its place, its secrets, the age of its keys, its certificates."""

from collections.abc import Iterator
from shlex import quote

from cryptography import x509

from fedperfit.cloud.deployment.certificate_authority import next_day
from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.place import check_place
from fedperfit.cloud.deployment.release_store import KEY
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.protocol.doctor.files import age, certificates, folder_name, secrets
from fedperfit.protocol.doctor.findings import Finding, ok, warning, wrong
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.signing import read_signing_key

_OLD_KEY_DAYS = 2 * 365
_RENEW_DAYS, _ROTATE_DAYS = 30, 120


def folder(home: CloudHome) -> Iterator[Finding]:
    """Check the folder's name and place, and who may read its secrets.

    Args:
        home: The cloud.
    """
    yield from folder_name(home.folder, ())
    try:
        check_place(home.folder)
        yield ok("folder's place", "in no git work tree, and not in fedperfit's own folders")
    except InputError as error:
        yield warning("folder's place", str(error), "move it: what is in it must not be committed")
    yield from secrets(
        [
            *(home.folder, home.folder / KEY, home.tls / "ca.key", home.tls / "next.key"),
            *(home.tls / "server.key", home.control_token, home.superexec_secret, home.invitations),
            *(home.signer, home.registrar, home.flower / "credentials.yaml"),
        ]
    )


def keys(home: CloudHome, settings: CloudSettings) -> Iterator[Finding]:
    """Check the signing key and the certificates.

    Args:
        home: The cloud.
        settings: Its settings.
    """
    named = quote(str(home.folder))
    try:
        read_signing_key(home.folder / KEY)
        yield age(
            home.folder / KEY,
            "signing key",
            days=_OLD_KEY_DAYS,
            advice=f"fedperfit-cloud release rotate {named}",
        )
    except InputError as error:
        yield wrong("signing key", str(error), f"take {KEY} from your backup: edges trust no other key")
    renew = f"fedperfit-cloud tls renew {named}, then start `up` again"
    yield from certificates(
        home.tls / "server.crt", "the server's certificate", days=_RENEW_DAYS, advice=renew
    )
    yield from certificates(
        home.tls / "ca.crt",
        "certificate authority",
        days=_ROTATE_DAYS,
        advice=f"fedperfit-cloud tls rotate {named}",
    )
    yield from _host(home, settings, renew)
    day = next_day(home)
    if day is not None:
        yield ok("next authority", f"takes over on the first `up` after {day:%Y-%m-%d %H:%M} UTC")


def _host(home: CloudHome, settings: CloudSettings, advice: str) -> Iterator[Finding]:
    """Check that the server's certificate is for the host of the settings."""
    try:
        certificate = x509.load_pem_x509_certificate((home.tls / "server.crt").read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return  # told already
    held = [str(name.value) for name in names]
    if settings.host in held:
        yield ok("certificate's names", ", ".join(held))
    else:
        yield wrong("certificate's names", f"host={settings.host} is not among {', '.join(held)}", advice)

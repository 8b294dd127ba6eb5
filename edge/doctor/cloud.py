"""Checks of the way to the cloud: address, certificates, and the clocks of both sides."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from fedperfit.edge.deployment.home import Home, cloud_address
from fedperfit.protocol.doctor.files import certificates
from fedperfit.protocol.doctor.findings import Finding, ok, wrong
from fedperfit.protocol.doctor.network import reach
from fedperfit.protocol.system.errors import InputError

_SKEW = timedelta(minutes=5)
"""Difference of the clocks that Flower's authentication allows, less a little."""
_SECONDS = 5.0
_AUTHORITY_DAYS = 30


def cloud(home: Home) -> Iterator[Finding]:
    """Check that the enrolled address answers, with a certificate that is trusted here.

    Args:
        home: The person's folder.

    Raises:
        InputError: If the address or the authority's certificate is missing or broken.
    """
    address = cloud_address(home)
    yield from certificates(
        home.authority,
        "the cloud's authority",
        days=_AUTHORITY_DAYS,
        advice="fedperfit-edge trust FOLDER FILE, with tls/authorities.json of your cloud",
    )
    try:
        trusted = ssl.create_default_context(cafile=str(home.authority))
    except ssl.SSLError:
        raise InputError(f"{home.authority}: not a certificate in PEM form") from None
    host, _, port = address.rpartition(":")
    advice = f"ask your cloud's operator whether it is up at {address}, and check your network"
    yield from reach(host.removeprefix("[").removesuffix("]"), int(port), trusted, advice)
    yield from _clocks(address, trusted)


def _clocks(address: str, trusted: ssl.SSLContext) -> Iterator[Finding]:
    """Compare the cloud's clock with this machine's, where it answers."""
    try:
        with httpx.Client(verify=trusted, timeout=_SECONDS, trust_env=False) as client:
            there = parsedate_to_datetime(client.head(f"https://{address}/").headers["date"])
    except (httpx.HTTPError, KeyError, ValueError):
        return
    difference = abs(datetime.now(UTC) - there)
    if difference > _SKEW:
        said = f"{difference.total_seconds() / 60:.0f} minutes apart: the cloud hears no edge like that"
        yield wrong(
            "clocks of cloud and edge", said, "set the clock, or have it set: timedatectl set-ntp true"
        )
    else:
        yield ok("clocks of cloud and edge", f"{difference.total_seconds():.0f} s apart")

"""Checks of what a cloud trains: base model, policy, releases, and who is to join."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from shlex import quote

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.enrolment.invitations import invitations
from fedperfit.cloud.enrolment.policy import POLICY, policy_of
from fedperfit.cloud.enrolment.registration import enrolled, keys_for_sums, waiting
from fedperfit.protocol.doctor.findings import Finding, ok, warning, wrong
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.system.errors import InputError, count_of
from fedperfit.protocol.trust.pointer import Pointer, parse_pointer
from fedperfit.protocol.trust.policy import read_policy
from fedperfit.protocol.trust.published import POINTER_FILE, RELEASES
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.validity import parse_time

_EXPIRES_SOON = timedelta(days=14)


def model_and_policy(home: CloudHome, settings: CloudSettings) -> Iterator[Finding]:
    """Check that the base model is there, and that edges were offered what the settings need.

    Args:
        home: The cloud.
        settings: Its settings.
    """
    try:
        card = read_card(settings.base_model)
    except InputError as error:
        yield wrong("base model", str(error), "put it where base-model in cloud.toml says")
        return
    yield ok("base model", f"{settings.base_model}, {card.fingerprint[:16]}")
    path, write = home.folder / POLICY, f"fedperfit-cloud policy {quote(str(home.folder))} FILE"
    if not path.exists():
        yield ok("policy", "nobody was offered one yet")
        return
    releases = CloudReleases(home.folder)
    latest = releases.latest()
    keys = [releases.key().public, *([r.old for r in latest.rotations] if latest is not None else [])]
    offered = read_policy(path, *keys)
    needed = policy_of(settings, card, offered.version)
    differing = [key for key, value in needed.to_flat().items() if offered.to_flat().get(key) != value]
    if "fingerprint" in differing:
        said = f"edges agreed to base model {offered.fingerprint[:16]}, here is {card.fingerprint[:16]}"
        yield wrong("policy", said, "put the agreed base model back, or have edges agree to a new policy")
    elif differing:
        said = f"cloud.toml differs from what edges agreed to in {', '.join(differing)}"
        yield warning(
            "policy", said, f"{write}, then fedperfit-edge policy FOLDER --accept FILE at every edge"
        )
    else:
        yield ok("policy", f"version {offered.version} is what the settings need")


def releases(home: CloudHome) -> Iterator[Finding]:
    """Check the chain of releases, the one in force, and the cloud's word on it.

    Args:
        home: The cloud.
    """
    store, now = CloudReleases(home.folder), datetime.now(UTC)
    chain = store.verify()
    if not chain:
        yield ok("releases", "none yet")
        return
    yield ok("releases", f"{len(chain)}, all verified")
    yield _in_force(store.in_force(), now)
    try:
        pointer = parse_pointer((home.folder / RELEASES / POINTER_FILE).read_bytes())
    except FileNotFoundError:
        yield wrong(
            "pointer", f"{POINTER_FILE} is missing", "take it from your backup: it lists what was revoked"
        )
        return
    yield _pointer(pointer, chain, now)


def signed_last(home: CloudHome) -> datetime | None:
    """Return the time at which the cloud last signed its word on the release in force; None before."""
    try:
        return parse_time(parse_pointer((home.folder / RELEASES / POINTER_FILE).read_bytes()).issued)
    except (FileNotFoundError, InputError):
        return None


def people(home: CloudHome) -> Iterator[Finding]:
    """Check who is enrolled, who waits for approval, and whose registration did not end.

    Args:
        home: The cloud.
    """
    here, asking = enrolled(home), waiting(home)
    yield ok("enrolled", count_of(len(here), "client"))
    if asking:
        advice = f"fedperfit-cloud approve {quote(str(home.folder))} NAME"
        yield warning("approval", f"wait: {', '.join(asking)}", advice)
    for invitation in invitations(home):
        if invitation.key and invitation.name not in {*here.values(), *asking}:
            said = f"the registration of {invitation.name} did not end"
            yield warning("enrolment", said, "start `up`: the same `join` goes on, and ends it")


def named_for_sums(home: CloudHome, settings: CloudSettings) -> Iterator[Finding]:
    """Check that the release in force names the clients whose updates are summed up, where they are.

    Args:
        home: The cloud.
        settings: Its settings.
    """
    if not settings.secure:
        return
    release, here = CloudReleases(home.folder).in_force(), keys_for_sums(home)
    directory = release.directory if release is not None else None
    named = directory.keys if directory is not None else {}
    without = sorted(set(enrolled(home).values()) - set(here.keys))
    said = f"the release in force names {count_of(len(named), 'client')}"
    advice = f"fedperfit-cloud release members {quote(str(home.folder))}"
    if len(named) < settings.committee_size:
        yield wrong("secure sums", f"{said}, committee-size is {settings.committee_size}", advice)
    elif dict(named) != dict(here.keys):
        yield warning("secure sums", f"{said}; {len(here.keys)} have keys now, or other ones", advice)
    else:
        yield ok("secure sums", said)
    if without:
        yield warning("keys for sums", f"missing: {', '.join(without)}", "invite them again")


def _in_force(release: Release | None, now: datetime) -> Finding:
    check = "release in force"
    if release is None:
        return warning(check, "none: all were revoked", "start a run; until then edges have the base model")
    said = f"version {release.version}, of {release.issued}, valid until {release.expires}"
    if release.expired(now):
        return wrong(check, said, "start a run: edges take no expired release")
    if release.expired(now + _EXPIRES_SOON):
        return warning(check, said, "start a run before it expires")
    return ok(check, said)


def _pointer(pointer: Pointer, chain: list[Release], now: datetime) -> Finding:
    said = f"signed at {pointer.issued}, valid until {pointer.expires}"
    if pointer.newest < chain[-1].version:
        said = f"names version {pointer.version}, but {chain[-1].version} was released"
        return wrong("pointer", said, "start `up`: the signer renews it")
    if pointer.expired(now):
        return warning("pointer", said, "start `up`: the signer renews it, and edges notice that it is old")
    return ok("pointer", said)

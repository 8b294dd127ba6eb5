"""Checks of what was agreed with the cloud: policy, base model, the release in force and its age."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from shlex import quote

from fedperfit.edge.agent.history import read_history
from fedperfit.edge.deployment.home import AgentSettings, Home
from fedperfit.edge.releases.store import ReleaseStore
from fedperfit.edge.releases.trusted_keys import trusted_keys
from fedperfit.protocol.doctor.findings import Finding, ok, warning, wrong
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.policy import Policy, read_policy
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.validity import parse_time

_EXPIRES_SOON = timedelta(days=14)


def policy(home: Home, settings: AgentSettings) -> Iterator[Finding]:
    """Check that a policy was agreed to, and that the base model is the one it names.

    Args:
        home: The person's folder.
        settings: The agent's.
    """
    named = quote(str(home.folder))
    agreed: Policy | None = None
    if home.policy.exists():
        try:
            agreed = read_policy(home.policy, *trusted_keys(home.releases, settings.release_key))
            yield ok("policy", f"you agreed to version {agreed.version}: {', '.join(agreed.allowed)}")
        except InputError as error:
            advice = f"fedperfit-edge policy {named} --accept FILE of your cloud"
            yield wrong("policy", str(error), advice)
    else:
        yield wrong("policy", "you agreed to none, so everything is refused", "join by a new invitation")
    try:
        card = settings.known(read_card(settings.base_model))
    except InputError as error:
        yield wrong("base model", str(error), f"put it where base-model in {home.folder}/agent.json says")
        return
    if agreed is not None and agreed.fingerprint != card.fingerprint:
        said = f"{card.fingerprint[:16]}; agreed is {agreed.fingerprint[:16]}, so every request is refused"
        yield wrong("base model", said, f"put the agreed one where {settings.base_model} is")
    else:
        yield ok("base model", f"{settings.base_model}, {card.fingerprint[:16]}")


def releases(home: Home, settings: AgentSettings) -> Iterator[Finding]:
    """Check the release in force, and how old the cloud's word on it is.

    Args:
        home: The person's folder.
        settings: The agent's.
    """
    store = _store(home, settings)
    store.verify()
    release, pointer = store.current(), store.pointer()
    if release is None and store.latest() is None:
        yield ok("release in force", "none yet: the base model answers")
    else:
        yield _release(store, release)
    notice = store.notice()
    if notice:
        yield warning("news of releases", notice, "check the way to the cloud, and fetcher.log")
    elif pointer is not None:
        yield ok("news of releases", f"confirmed at {pointer.issued}")


def signed_last(home: Home, settings: AgentSettings) -> datetime | None:
    """Return the latest time at which the cloud signed something that is kept here; None before."""
    try:
        store = _store(home, settings)
        pointer, release = store.pointer(), store.latest()
    except InputError:
        return None
    times = [parse_time(signed.issued) for signed in (pointer, release) if signed is not None]
    return max(times, default=None)


def _release(store: ReleaseStore, release: Release | None) -> Finding:
    check = "release in force"
    if release is None:
        return warning(check, "none: it was revoked", "nothing: the next one is fetched when there is one")
    said = f"version {release.version}, valid until {release.expires}"
    if store.expired(release):
        return wrong(check, said, "check the way to the cloud; else ask its operator for a new release")
    if release.expired(datetime.now(UTC) + _EXPIRES_SOON):
        return warning(check, said, "nothing, if your cloud releases before then")
    return ok(check, said)


def _store(home: Home, settings: AgentSettings) -> ReleaseStore:
    return ReleaseStore(
        home.releases,
        pinned=settings.release_key,
        fingerprint=settings.known(read_card(settings.base_model)).fingerprint,
        task=read_history(home.folder).task.id,
    )

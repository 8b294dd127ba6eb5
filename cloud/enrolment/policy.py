"""The policy that a cloud offers its edges: what its own settings need, and no more."""

from typing import Any

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.job.basis import settings_basis
from fedperfit.cloud.job.directions import EVALUATIONS, SEARCHES
from fedperfit.protocol.model.base_model import BaseModelCard, read_card
from fedperfit.protocol.system.errors import InputError, MalformedFileError
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.trust.policy import Policy, sign_policy, verify_policy, write_policy
from fedperfit.protocol.trust.signing import SigningKey

POLICY = "policy.json"
"""File in the cloud's folder: the policy offered last, signed."""
_RUNS = 5
"""Runs a day, resumed ones included, that the budgets leave room for."""
_FITS = 2
"""Fits of a personal shift in a run: as the edge fetches its release, and as the cloud asks for it."""
_PHASES = 4
"""Evaluations in a run: one for each stage."""
_SLACK = 4.0
"""Factor by which rates and clipping may differ from today's settings without a new agreement."""
_STEPS = 100_000


def policy_of(settings: CloudSettings, card: BaseModelCard, version: int = 1) -> Policy:
    """Derive the policy that the edges of a cloud are asked to agree to.

    Args:
        settings: The cloud's.
        card: Its base model.
        version: Number of the agreement.

    Raises:
        InputError: Layers or ranks are left open, or a number of items is below the least.
    """
    if settings.open:
        raise InputError(
            "layers or ranks are `auto`: an edge agrees to a fixed shape; choose it by a simulation first"
        )
    if settings.directions and settings.directions_items < settings.least_items:
        raise InputError(
            f"directions-items={settings.directions_items}: edges make sums of at least "
            f"least-items={settings.least_items}"
        )
    if 0 < settings.collective_max_items < settings.least_items:
        raise InputError(
            f"collective-max-items={settings.collective_max_items}: edges contribute at least "
            f"least-items={settings.least_items}"
        )
    shape = settings.shape(card)
    rates = (settings.collective_learning_rate, settings.personal_learning_rate)
    personal = settings.personal("full")
    basis = settings_basis(settings, card)
    return Policy(
        version=version,
        fingerprint=card.fingerprint,
        task=settings.task,
        prompt_form=settings.prompt_form,
        layers=list(shape.layers),
        rank=shape.rank,
        hidden_size=shape.hidden_size,
        positions=str(shape.positions),
        personal_rank=personal.rank,
        least_rate=min(rates) / _SLACK,
        most_rate=min(1.0, max(rates) * _SLACK),
        least_clip=settings.clip_norm / _SLACK,
        most_clip=settings.clip_norm * _SLACK,
        most_decay=max(0.1, settings.weight_decay),
        batch_size=settings.batch_size,
        most_epochs=2 * max(settings.collective_epochs, settings.personal_epochs),
        update_epochs=2 * settings.collective_epochs,
        most_steps=_STEPS,
        max_items=settings.collective_max_items,
        least_items=settings.least_items,
        most_answers=max(64, settings.evaluation_batch_size),
        update_basis=basis.digest if basis is not None else "",
        update_codec=settings.transport_dtype if basis is not None else "float32",
        update_numbers=basis.numbers if basis is not None else 0,
        **(_sums(settings) if settings.secure else {}),
        pair_items=settings.directions_items if settings.directions else 0,
        pair_source=settings.directions_source.value,
        contribute_per_day=_RUNS * settings.rounds,
        personalize_per_day=_RUNS * _FITS,
        evaluate_per_day=_RUNS * _PHASES,
        moments_per_day=_RUNS if settings.directions else 0,
        probe_per_day=_RUNS * SEARCHES * EVALUATIONS if settings.directions else 0,
        pull_per_day=_RUNS if settings.warm_start else 0,
        mirror=settings.mirror,
    )


def _sums(settings: CloudSettings) -> dict[str, Any]:
    shape = settings.committee
    return {
        "committee_size": shape.size,
        "committee_corrupt": shape.corrupt,
        "committee_threshold": shape.threshold,
        "fewest_contributors": settings.fewest_contributors,
        "fewest_apart": settings.fewest_apart,
        "clipping_norm": settings.clipping_norm,
        "sum_per_day": _RUNS * settings.rounds,
    }


def offered(home: CloudHome, settings: CloudSettings, key: SigningKey) -> dict[str, Any]:
    """Return the signed policy that edges are offered now, under a new version if the settings changed.

    Args:
        home: The cloud.
        settings: Its settings.
        key: Its signing key.

    Raises:
        InputError: The settings leave the shape of the shift open, or the file of the last one is broken.
    """
    path = home.folder / POLICY
    card = read_card(settings.base_model)
    version = 1
    if path.exists():
        signed: dict[str, Any] = read_json(path)
        last = _last(signed)
        if last == policy_of(settings, card, last.version) and _signed_by(signed, key):
            return signed
        version = last.version + 1
    signed = sign_policy(policy_of(settings, card, version), key)
    write_policy(path, signed)
    return signed


def _last(signed: Any) -> Policy:
    """Read the policy offered last, whoever signed it: a rotation may have changed the key."""
    try:
        return Policy.from_flat(signed["policy"])
    except (KeyError, TypeError) as error:
        raise MalformedFileError(f"{POLICY}: not a signed policy ({error})") from None


def _signed_by(signed: Any, key: SigningKey) -> bool:
    try:
        verify_policy(signed, key.public)
    except MalformedFileError:
        return False
    return True

"""Result of an audit: the figures of every attack and control, with the setting they hold for."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedperfit.cloud.tracking.figures import flat_figures
from fedperfit.protocol.system.errors import count_of
from fedperfit.simulation.audit.attack import Attack, Trials
from fedperfit.simulation.audit.figures import figures
from fedperfit.simulation.audit.settings import AuditSettings

RESULT = "result.json"
"""File in the folder of an audit."""
FORMAT = 1
"""Number of the file's format."""


def result_of(settings: AuditSettings, trials: Sequence[tuple[Attack, Sequence[Trials]]]) -> dict[str, Any]:
    """Return the result, as in result.json.

    Args:
        settings: Settings of the audit.
        trials: Each attack with all of its trials.
    """
    return {
        "format": FORMAT,
        "setting": setting_of(settings),
        "settings": settings.to_flat(),
        "attacks": {attack.name: _attack(settings, attack, all_) for attack, all_ in trials},
    }


def final_figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of every condition, by the path to each, for whoever follows the audit's events."""
    return flat_figures({name: attack["conditions"] for name, attack in result["attacks"].items()})


def setting_of(settings: AuditSettings) -> dict[str, Any]:
    """Return what an edge gives under these settings, by name, for people."""
    basis = settings.update_basis
    passes, own = (
        count_of(number, "epoch") for number in (settings.collective_epochs, settings.personal_epochs)
    )
    return {
        "base model": settings.base_model,
        "data": settings.data,
        "task": settings.task_id,
        "policy": f"updates of exactly {settings.items} items, of this shape and training, or none",
        "update": "whole shift" if basis == "none" else f"coordinates in a {basis} basis",
        "codec": settings.transport_dtype,
        "training of a round": f"{passes}, batches of {settings.batch_size}, "
        f"rate {settings.collective_learning_rate:g}",
        "training of a personal shift": f"{own}, rank {settings.personal_rank}",
        "sums seen by the cloud": settings.sums,
        "noise, at epsilon": settings.noise_epsilons,
        "delta": settings.target_delta,
    }


def _attack(settings: AuditSettings, attack: Attack, trials: Sequence[Trials]) -> dict[str, Any]:
    conditions = {}
    for name, role in attack.conditions().items():
        own = [each for each in trials if each.condition == name]
        if own:
            conditions[name] = {
                "role": role.value,
                **figures(own, settings.bootstrap_samples, across=attack.across),
                **attack.beyond(name, own),
            }
    return {"title": attack.title, "meaning": attack.meaning, "conditions": conditions}

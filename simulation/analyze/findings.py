"""Figures of one task from its delta-vectors, as JSON values, and whether the paper's findings hold."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fedperfit.cloud.tracking.figures import flat_figures
from fedperfit.protocol.tasks import AnswerKind, Task
from fedperfit.simulation.analyze.spectra import (
    Estimate,
    direction,
    grouping,
    held_out_coordinates,
    held_out_shares,
    mean_estimate,
    principal_coordinates,
    rank_estimates,
    share_band,
    shares,
    spread_estimate,
)
from fedperfit.simulation.analyze.vectors import HISTORY, OTHER, RANDOM, UserTexts

MIDDLE = 15 / 32
"""Depth of the layer in the table, as a part of the model's; PerFit's layers are 14 to 16 of 32."""
FEW = 0.25
"""Largest part of all possible directions, min(users, d), that counts as few."""
HOLDS, FAILS, CHANCE = "holds", "does not hold", "within chance"


def describe(task: Task, users: Sequence[UserTexts], deltas: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Compute all figures of one task.

    Args:
        task: Task that is worked on.
        users: Users with their questions and texts.
        deltas: Delta-vectors by kind of text: (users, layers, d).
    """
    depth = deltas[HISTORY].shape[1]
    middle = min(depth - 1, round(MIDDLE * depth))
    at_middle = {kind: v[:, middle] for kind, v in deltas.items()}
    layers = [layer_statistics({kind: v[:, layer] for kind, v in deltas.items()}) for layer in range(depth)]
    return {
        "users": len(users),
        "queries": sum(len(user.queries) for user in users),
        "tokens": sum(len(ids) for user in users for ids in user.contexts[HISTORY])
        / sum(len(user.queries) for user in users),
        "hidden-size": deltas[HISTORY].shape[2],
        "middle": middle,
        "layers": layers,
        "findings": findings(layers[middle], min(at_middle[HISTORY].shape)),
        "spectrum": {kind: _curve(v) for kind, v in at_middle.items()},
        "held-out-shares": held_out_shares(at_middle[HISTORY]).tolist(),
        "people": _people(task, users, at_middle),
    }


def final_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a study, by the path to each, for whoever follows its events.

    Args:
        summary: The figures, as in metrics.json; those of single users are left out.
    """
    return flat_figures(
        {
            name: {"findings": about["findings"], "middle-layer": about["layers"][about["middle"]]}
            for name, about in summary["tasks"].items()
        }
    )


def layer_statistics(deltas: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Compute ranks and coordinates at one layer, per kind of text.

    `shift` is the mean coordinate on the direction of history, fitted on other users; `own-shift` likewise on
    the kind's own direction; `difference` is history's coordinate less this kind's, paired; `length` is the
    root mean square of |v_i|.

    Args:
        deltas: Delta-vectors by kind of text, `HISTORY` among them: (users, d).
    """
    own = held_out_coordinates(deltas[HISTORY], deltas[HISTORY])
    first = direction(deltas[HISTORY])
    result = {}
    for kind, v in deltas.items():
        coordinates = held_out_coordinates(deltas[HISTORY], v)
        result[kind] = {
            "ranks": rank_estimates(v),
            "personal-ranks": rank_estimates(v - v.mean(0)),
            "first-share": float(shares(v)[0]),
            "shift": mean_estimate(coordinates),
            "spread": spread_estimate(coordinates),
            "difference": mean_estimate(own - coordinates),
            "own-shift": mean_estimate(held_out_coordinates(v, v)),
            "cosine": float(direction(v) @ first),
            "length": float(v.double().square().sum(1).mean().sqrt()),
        }
    return result


def findings(layer: Mapping[str, Any], directions: int) -> dict[str, Any]:
    """Judge the paper's two findings at one layer, and whether each is special to a user's own history.

    Args:
        layer: Figures of the layer, as `layer_statistics` makes them.
        directions: Number of directions there can be.
    """
    few = max(1, int(FEW * directions))
    ranks = layer[HISTORY]["ranks"]["0.9"]
    return {
        "few-directions": {
            "verdict": HOLDS if ranks["high"] <= few else FAILS if ranks["low"] > few else CHANCE,
            "few": few,
            "directions": directions,
            "ranks": layer[HISTORY]["ranks"],
            RANDOM: layer[RANDOM]["ranks"],
        },
        "collective-shift": {
            "verdict": beyond_zero(layer[RANDOM]["difference"]),
            "difference": layer[RANDOM]["difference"],
            OTHER: {
                "verdict": beyond_zero(layer[OTHER]["difference"]),
                "difference": layer[OTHER]["difference"],
            },
        },
    }


def beyond_zero(difference: Estimate) -> str:
    """Say whether a difference is above zero, below it, or either by chance."""
    return HOLDS if difference["low"] > 0 else FAILS if difference["high"] < 0 else CHANCE


def _curve(v: torch.Tensor) -> dict[str, list[float]]:
    low, high = share_band(v)
    return {"value": shares(v).tolist(), "low": low.tolist(), "high": high.tolist()}


def _people(task: Task, users: Sequence[UserTexts], deltas: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Collect per user, in one order: name, coordinates, place on the map, and what the user prefers."""
    v = deltas[HISTORY]
    result: dict[str, Any] = {
        "names": [user.target.history.name for user in users],
        "coordinates": {kind: held_out_coordinates(v, one).tolist() for kind, one in deltas.items()},
        "map": principal_coordinates(v).tolist(),
    }
    answers = [[str(item[task.answer]) for item in user.target.history.items] for user in users]
    if task.kind is AnswerKind.TEXT:
        result["words"] = [sum(len(text.split()) for text in texts) / len(texts) for texts in answers]
    else:
        result["labels"] = [Counter(texts).most_common(1)[0][0] for texts in answers]
        result["grouping"] = {kind: grouping(one, result["labels"]) for kind, one in deltas.items()}
    return result

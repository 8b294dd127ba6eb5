"""Which layers a shift should act on, of what rank, and from where to start: from people's layer gradients.

A layer gradient is the gradient of one person's mean loss with respect to a constant added at the shifted
positions after each layer (`edge/engine/layer_gradients.py`). A layer matters as much as these gradients
are large, measured in lengths of its own hidden states: a small step in a short state is as much as a large
one in a long state. Their directions, and how many are needed, come from their singular value decomposition.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedperfit.protocol.shift.shift import Shift, ShiftShape
from fedperfit.protocol.system.errors import InputError

LAYERS = 2
"""Layers chosen unless told otherwise: as many as most of the paper's presets have."""
SHARE = 0.8
"""Of the energy of people's gradients, which the rank must hold."""
PERSONAL_SHARE = 0.5
"""The same for the personal rank, which the collective shift has left less to."""
MOST = 16
"""Rank at most."""
STEP = 0.05
"""Of a warm start, in state lengths: it speeds the first round, where 0.2 begins to overshoot."""


@dataclass(frozen=True)
class LayerGradient:
    """One person's."""

    gradient: torch.Tensor
    """(layers, d) fp32: of the mean loss in nats, at no offset."""
    length: torch.Tensor
    """(layers,): mean length of the hidden states there."""
    pairs: int


@dataclass(frozen=True)
class LayerSelection:
    """What is chosen."""

    layers: tuple[int, ...]
    rank: int


def relevance(layer_gradients: Sequence[LayerGradient]) -> torch.Tensor:
    """(layers,): root mean square over people of the gradient's length times the states' length."""
    weights = torch.tensor([float(layer_gradient.pairs) for layer_gradient in layer_gradients])
    energy = torch.stack(
        [
            (layer_gradient.gradient.norm(dim=1) * layer_gradient.length) ** 2
            for layer_gradient in layer_gradients
        ]
    )
    return ((weights[:, None] * energy).sum(0) / weights.sum()).sqrt()


def select_layers(
    layer_gradients: Sequence[LayerGradient], layers: int = LAYERS, share: float = SHARE
) -> LayerSelection:
    """The `layers` with the largest gradients, and the least rank that holds `share` of them there.

    Raises InputError without people, or for more layers than there are.
    """
    if not layer_gradients:
        raise InputError("layers and rank cannot be chosen: nobody has pairs")
    matters = relevance(layer_gradients)
    if not 1 <= layers <= len(matters):
        raise InputError(f"layers={layers}: a model of {len(matters)} layers has 1..{len(matters)} to choose")
    chosen = sorted(matters.argsort(descending=True, stable=True)[:layers].tolist())
    return LayerSelection(tuple(chosen), least_rank(layer_gradients, chosen, share))


def least_rank(layer_gradients: Sequence[LayerGradient], layers: Sequence[int], share: float) -> int:
    """The least rank, up to MOST, that holds `share` of the energy of people's gradients in each layer."""
    return min(MOST, max(_rank(_rows(layer_gradients, layer), share) for layer in layers))


def warm_start(layer_gradients: Sequence[LayerGradient], shape: ShiftShape, step: float, seed: int) -> Shift:
    """R along people's leading gradients, W = R, b a step of `step` state lengths down their mean gradient.

    The length is people's median, so that nobody's word alone can make the step long. Where there are fewer
    gradients than ranks, the rest of R is drawn from `seed`.
    """
    R, b = [], []
    drawn = Shift.identity(shape, seed=seed)
    for index, layer in enumerate(shape.layers):
        rows = _rows(layer_gradients, layer)
        mean = rows.sum(0) / sum(layer_gradient.pairs for layer_gradient in layer_gradients) ** 0.5
        found = torch.linalg.svd(rows.double(), full_matrices=False).Vh[: shape.rank].float()
        whole = torch.cat([found, drawn.R[index].detach()])
        axes = torch.linalg.qr(whole.double().T).Q.T[: shape.rank].float()
        R.append(axes)
        length = float(
            torch.stack([layer_gradient.length[layer] for layer_gradient in layer_gradients]).median()
        )
        along = axes @ torch.nn.functional.normalize(mean, dim=0)
        b.append(-step * length * along)
    axes = torch.stack(R)
    return Shift(shape, R=axes, W=axes.clone(), b=torch.stack(b))


def _rows(layer_gradients: Sequence[LayerGradient], layer: int) -> torch.Tensor:
    """(people, d): each person's gradient, weighted by the root of their pairs."""
    return torch.stack(
        [layer_gradient.gradient[layer] * layer_gradient.pairs**0.5 for layer_gradient in layer_gradients]
    )


def _rank(rows: torch.Tensor, share: float) -> int:
    energy = torch.linalg.svdvals(rows.double()) ** 2
    held = (energy / energy.sum()).cumsum(0)
    return min(len(held), int((held < share - 1e-9).sum()) + 1)

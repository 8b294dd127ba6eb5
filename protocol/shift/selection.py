"""The layers a shift should act on, its rank and its start, chosen from people's layer gradients.

A layer gradient is the gradient of one person's mean loss with respect to a constant added at the shifted
positions after each layer (`edge/engine/layer_gradients.py`). A layer matters as much as these gradients
are large, measured in lengths of its own hidden states: a small step in a short state is as much as a large
one in a long state. Their directions, and how many are needed, come from their singular value decomposition.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError

LAYERS = 2
"""Default number of layers chosen: as many as most of the paper's presets have."""
SHARE = 0.8
"""Share of the energy of people's gradients that the collective rank must hold."""
PERSONAL_SHARE = 0.5
"""Share that the personal rank must hold; the collective shift leaves less to do."""
MOST = 16
"""Largest rank that is chosen."""
STEP = 0.05
"""First step of a warm start, in state lengths: it speeds up the first round, where 0.2 overshoots."""


@dataclass(frozen=True)
class LayerGradient:
    """Gradient of one person's mean loss with respect to each layer's output."""

    gradient: torch.Tensor
    """Gradient of the mean loss in nats, at no offset: (layers, d) fp32."""
    length: torch.Tensor
    """Mean length of the hidden states at the shifted positions: (layers,)."""
    pairs: int
    """Number of training pairs behind the mean."""


@dataclass(frozen=True)
class LayerSelection:
    """The layers and the rank chosen for a shift."""

    layers: tuple[int, ...]
    """Decoder layers, ascending, counted from 0."""
    rank: int
    """Rank of the shift in each of them."""


def relevance(layer_gradients: Sequence[LayerGradient]) -> torch.Tensor:
    """Measure how much each layer matters to the loss.

    Args:
        layer_gradients: One per person; a person weighs as much as their pairs.

    Returns:
        (layers,): root mean square over people of the gradient's length times the states' length.
    """
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
    """Choose the layers with the largest gradients, and the least rank that holds enough of them there.

    Args:
        layer_gradients: One per person.
        layers: Number of layers to choose.
        share: Share of the gradients' energy that the rank must hold, in 0..1.

    Raises:
        InputError: Without people, or for more layers than the model has.
    """
    if not layer_gradients:
        raise InputError("layers and rank cannot be chosen: nobody has pairs")
    matters = relevance(layer_gradients)
    if not 1 <= layers <= len(matters):
        raise InputError(f"layers={layers}: a model of {len(matters)} layers has 1..{len(matters)} to choose")
    chosen = sorted(matters.argsort(descending=True, stable=True)[:layers].tolist())
    return LayerSelection(tuple(chosen), least_rank(layer_gradients, chosen, share))


def least_rank(layer_gradients: Sequence[LayerGradient], layers: Sequence[int], share: float) -> int:
    """Return the least rank, up to MOST, that holds enough of people's gradients in each layer.

    Args:
        layer_gradients: One per person.
        layers: Decoder layers the shift acts on.
        share: Share of the gradients' energy to hold in each layer, in 0..1.
    """
    return min(MOST, max(_rank(_rows(layer_gradients, layer), share) for layer in layers))


def warm_start(layer_gradients: Sequence[LayerGradient], shape: ShiftShape, step: float, seed: int) -> Shift:
    """Make a shift whose R follows people's leading gradients, W = R, b a step down their mean gradient.

    The step is measured in people's median state length, so that no single person can make it long. Where
    there are fewer gradients than ranks, the rest of R is random.

    Args:
        layer_gradients: One per person.
        shape: Shape of the shift.
        step: Length of the step, in state lengths.
        seed: Seed of the random rows of R.
    """
    R, b = [], []
    drawn = Shift.identity(shape, seed=seed)
    for index, layer in enumerate(shape.layers):
        rows = _rows(layer_gradients, layer)
        mean = rows.sum(0) / sum(layer_gradient.pairs for layer_gradient in layer_gradients) ** 0.5
        axes = leading_axes(layer_gradients, layer, drawn.R[index].detach())
        R.append(axes)
        length = float(
            torch.stack([layer_gradient.length[layer] for layer_gradient in layer_gradients]).median()
        )
        along = axes @ torch.nn.functional.normalize(mean, dim=0)
        b.append(-step * length * along)
    axes = torch.stack(R)
    return Shift(shape, R=axes, W=axes.clone(), b=torch.stack(b))


def leading_axes(layer_gradients: Sequence[LayerGradient], layer: int, drawn: torch.Tensor) -> torch.Tensor:
    """Return orthonormal rows along people's leading gradients at a layer.

    Args:
        layer_gradients: One per person.
        layer: Decoder layer, counted from 0.
        drawn: (r, d) rows that fill up where there are fewer gradients than rows.

    Returns:
        (r, d) fp32.
    """
    rows = _rows(layer_gradients, layer)
    leading = torch.linalg.svd(rows.double(), full_matrices=False).Vh[: len(drawn)].float()
    whole = torch.cat([leading, drawn])
    axes: torch.Tensor = torch.linalg.qr(whole.double().T).Q.T[: len(drawn)].float()
    return axes


def _rows(layer_gradients: Sequence[LayerGradient], layer: int) -> torch.Tensor:
    """Return each person's gradient, weighted by the root of their pairs: (people, d)."""
    return torch.stack(
        [layer_gradient.gradient[layer] * layer_gradient.pairs**0.5 for layer_gradient in layer_gradients]
    )


def _rank(rows: torch.Tensor, share: float) -> int:
    energy = torch.linalg.svdvals(rows.double()) ** 2
    held = (energy / energy.sum()).cumsum(0)
    return min(len(held), int((held < share - 1e-9).sum()) + 1)

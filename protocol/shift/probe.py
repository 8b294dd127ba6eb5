"""CHAMELEON's directions from sums over preference pairs, so that pairs never leave their person.

p and n: hidden states (layers, pairs, d) of personalized and neutral texts. The personalized direction is
the first right singular vector of all p (Zhang et al., 2025, equation 3); the neutral one the weight of a
CCS probe (Burns et al., 2023), g(v) = sigmoid(theta v + b), which tells n from p without labels, each side
centred by its own mean:

    loss = mean over pairs of (g(n) - (1 - g(p)))^2 + min(g(n), g(p))^2

The paper prints the minimum unsquared; Burns et al. square it, as is done here. Theta lies in the few
leading directions along which p - n varies and is kept short: left free, it settles elsewhere with every
start, and misses directions that are there (tests/edge/chameleon/test_identify.py). Two exchanges give both
directions: a summary of each person's pairs (`Moments`), and some rounds of loss and gradient (`evaluate`,
`minimise`). The probe equals that of the pooled pairs; so does the personalized direction, up to the rows
left out of `Moments`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

RANK = 8
"""Dimension of the subspace theta lies in."""
RESTARTS = 8
"""Random starts of the search, of which the one with the lowest loss wins."""
EVALUATIONS = 40
"""Most evaluations of loss and gradient in one search."""
SHRINKAGE = 0.03
"""Weight of theta's squared length; half of it times that length is added to the mean loss."""


@dataclass(frozen=True)
class Moments:
    """A summary of one contributor's pairs, in fp32."""

    pairs: int
    """Number of preference pairs summarized."""
    personalized_sum: torch.Tensor
    """Sum of the personalized states: (layers, d)."""
    neutral_sum: torch.Tensor
    """Sum of the neutral states: (layers, d)."""
    rows: torch.Tensor
    """Leading right singular vectors of p times their singular values: (layers, rows, d)."""

    @classmethod
    def of(cls, personalized: torch.Tensor, neutral: torch.Tensor, rows: int = 0) -> "Moments":
        """Summarize pairs of hidden states.

        Args:
            personalized: (layers, pairs, d) states p of the personalized texts.
            neutral: (layers, pairs, d) states n of the neutral texts.
            rows: Number of singular vectors of p in the summary; 0 keeps p itself, and nothing is lost.
        """
        leading_rows = personalized
        if 0 < rows < personalized.shape[1]:
            _, values, vectors = torch.linalg.svd(personalized.double(), full_matrices=False)
            leading_rows = (values[:, :rows, None] * vectors[:, :rows]).float()
        return cls(personalized.shape[1], personalized.sum(1), neutral.sum(1), leading_rows)


def leading(contributors: Sequence[Moments]) -> torch.Tensor:
    """Return the first right singular vector of all contributors' p together, uncentred.

    Args:
        contributors: One summary per contributor.

    Returns:
        (layers, d) fp32.
    """
    return _axes(torch.cat([moments.rows for moments in contributors], dim=1).double(), 1)[:, 0].float()


def _axes(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Return the leading right singular vectors (layers, count, d) of (layers, rows, d)."""
    axes: torch.Tensor = torch.linalg.svd(rows, full_matrices=False).Vh[:, :count]
    return axes


@dataclass(frozen=True)
class Frame:
    """Coordinates in which a probe sees states: state - mean along few axes, scaled; fp64."""

    personalized_mean: torch.Tensor
    """Mean of the personalized states: (layers, d)."""
    neutral_mean: torch.Tensor
    """Mean of the neutral states: (layers, d)."""
    axes: torch.Tensor
    """Axes of the coordinates: (layers, rank, d), rows orthonormal."""
    scale: torch.Tensor
    """Divisor of the coordinates: (layers,)."""

    @classmethod
    def of(cls, contributors: Sequence[Moments]) -> "Frame":
        """Make the frame along which contributors' mean differences p - n differ most.

        Args:
            contributors: One summary per contributor: a person, or a single pair of one person. The sums
                that people send give the same frame, to the last bit, as their pairs would.
        """
        pairs = sum(moments.pairs for moments in contributors)
        sums = [
            torch.stack([getattr(moments, side) for moments in contributors], dim=1).double()
            for side in ("personalized_sum", "neutral_sum")
        ]
        p, n = (side.sum(1) / pairs for side in sums)
        weights = torch.tensor([float(moments.pairs) for moments in contributors], dtype=torch.double)[
            :, None
        ]
        rows = (sums[0] - sums[1]) / weights.sqrt() - weights.sqrt() * (p - n)[:, None]
        axes = _axes(rows, RANK)
        energy = (rows @ axes.mT).square().sum((1, 2)) / pairs
        return cls(p, n, axes, energy.sqrt().clamp(min=torch.finfo(torch.float32).eps) / 2)

    def coordinates(
        self, personalized: torch.Tensor, neutral: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Project hidden states on the axes.

        Args:
            personalized: (layers, pairs, d) states p.
            neutral: (layers, pairs, d) states n.

        Returns:
            Coordinates of p and of n, (layers, pairs, rank) each.
        """
        p = (personalized - self.personalized_mean[:, None]) @ self.axes.mT
        n = (neutral - self.neutral_mean[:, None]) @ self.axes.mT
        return p / self.scale[:, None, None], n / self.scale[:, None, None]


@dataclass(frozen=True)
class Probe:
    """One linear probe for each layer."""

    theta: torch.Tensor
    """Weights in the space of hidden states: (layers, d)."""
    loss: torch.Tensor
    """Mean loss over pairs: (layers,)."""


def terms(z_p: torch.Tensor, z_n: torch.Tensor) -> torch.Tensor:
    """Compute the CCS loss of each pair (Burns et al., 2023).

    Args:
        z_p: Logits of the personalized sides.
        z_n: Logits of the neutral sides, of the same shape.

    Returns:
        Losses, of the same shape.
    """
    p, n = torch.sigmoid(z_p), torch.sigmoid(z_n)
    loss: torch.Tensor = (n - (1 - p)) ** 2 + torch.minimum(p, n) ** 2
    return loss


def evaluate(p: torch.Tensor, n: torch.Tensor, probes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum loss and gradient over pairs.

    Args:
        p: (layers, pairs, rank) coordinates of the personalized sides.
        n: (layers, pairs, rank) coordinates of the neutral sides.
        probes: (layers, rank + 1, restarts), the last row the bias.

    Returns:
        Summed losses (layers, restarts), and their gradient, of the shape of `probes`.
    """
    with torch.enable_grad():
        probes = probes.detach().requires_grad_()
        theta, bias = probes[:, :-1], probes[:, -1:]
        loss = terms(p @ theta + bias, n @ theta + bias).sum(1)
        (gradient,) = torch.autograd.grad(loss.sum(), probes)
    return loss.detach(), gradient


Evaluate = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Function from probes to the mean loss (layers, restarts) over everyone's pairs, and its gradient."""


def minimise(
    evaluate: Evaluate, frame: Frame, seed: int, *, restarts: int = RESTARTS, evaluations: int = EVALUATIONS
) -> Probe:
    """Search the probes with L-BFGS from seeded starts, all layers and restarts at once.

    Args:
        evaluate: Mean loss and gradient of probes (layers, rank + 1, restarts).
        frame: Coordinates the probes live in.
        seed: Seed of the starts.
        restarts: Number of starts; for each layer the one with the lowest loss is returned.
        evaluations: Most calls of `evaluate` within the search.
    """
    layers, rank, size = frame.axes.shape
    start = torch.Generator().manual_seed(seed)
    seeded = torch.randn(layers, size, restarts, generator=start).double()
    theta = torch.nn.functional.normalize(frame.axes @ seeded, dim=1)  # the same whatever basis the axes are
    probes = torch.cat([theta, theta.new_zeros(layers, 1, restarts)], dim=1).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [probes],
        max_iter=evaluations,
        max_eval=evaluations,
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-6,
    )

    def closure() -> float:
        loss, gradient = evaluate(probes.detach())
        inside = probes.detach()[:, :-1]
        gradient = gradient.clone()
        gradient[:, :-1] += SHRINKAGE * inside
        probes.grad = gradient
        return float(loss.sum() + SHRINKAGE / 2 * (inside**2).sum())

    optimizer.step(closure)
    loss, _ = evaluate(probes.detach())
    lowest, which = loss.min(dim=1)
    chosen = probes.detach()[:, :-1].gather(2, which[:, None, None].expand(-1, rank, 1))
    return Probe((frame.axes.mT @ chosen)[..., 0].float(), lowest.float())

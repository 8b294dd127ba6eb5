"""CHAMELEON's directions from sums over preference pairs, so that people's pairs need never meet.

p and n: hidden states (layers, pairs, d) of personalized and neutral texts. The personalized direction is
the first right singular vector of all p (Zhang et al., 2025, equation 3); the neutral one the weight of a
CCS probe (Burns et al., 2023), g(v) = sigmoid(theta v + b), which tells n from p without labels, each side
centred by its own mean:

    loss = mean over pairs of (g(n) - (1 - g(p)))^2 + min(g(n), g(p))^2

The paper prints the minimum unsquared; Burns et al. square it, as is done here. Theta lies in the few
leading directions along which p - n varies and is kept short: left free, it settles elsewhere with every
start, and misses directions that are there (tests/edge/chameleon/test_identify.py). Two exchanges give both
directions: what each person tells of their pairs (`Moments`), and some rounds of loss and gradient
(`evaluate`, `minimise`).
The probe is that of the pooled pairs; so is the personalized direction up to the rows left out of `Moments`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

RANK = 8
"""Directions theta lies in."""
RESTARTS = 8
EVALUATIONS = 40
"""Of loss and gradient, at most."""
SHRINKAGE = 0.03
"""Half of this times theta's squared length is added to the mean loss."""


@dataclass(frozen=True)
class Moments:
    """What one contributor tells of some pairs; all fp32."""

    pairs: int
    personalized_sum: torch.Tensor
    """(layers, d)."""
    neutral_sum: torch.Tensor
    rows: torch.Tensor
    """(layers, rows, d): the leading right singular vectors of p times their singular values."""

    @classmethod
    def of(cls, personalized: torch.Tensor, neutral: torch.Tensor, rows: int = 0) -> "Moments":
        """rows: how many are kept; 0 is all, and then nothing is lost."""
        kept = personalized
        if 0 < rows < personalized.shape[1]:
            _, values, vectors = torch.linalg.svd(personalized.double(), full_matrices=False)
            kept = (values[:, :rows, None] * vectors[:, :rows]).float()
        return cls(personalized.shape[1], personalized.sum(1), neutral.sum(1), kept)


def leading(several: Sequence[Moments]) -> torch.Tensor:
    """(layers, d): the first right singular vector of all contributors' p together, uncentred."""
    return _axes(torch.cat([one.rows for one in several], dim=1).double(), 1)[:, 0].float()


def _axes(rows: torch.Tensor, count: int) -> torch.Tensor:
    """(layers, count, d): the leading right singular vectors of (layers, rows, d)."""
    found: torch.Tensor = torch.linalg.svd(rows, full_matrices=False).Vh[:, :count]
    return found


@dataclass(frozen=True)
class Frame:
    """In which coordinates a probe sees states: of (state - mean) along few directions, scaled; fp64."""

    personalized_mean: torch.Tensor
    """(layers, d)."""
    neutral_mean: torch.Tensor
    axes: torch.Tensor
    """(layers, rank, d), rows orthonormal."""
    scale: torch.Tensor
    """(layers,), what coordinates are divided by."""

    @classmethod
    def of(cls, several: Sequence[Moments]) -> "Frame":
        """Along the directions in which contributors' mean differences p - n differ most.

        Contributors are people, or one person's single pairs. What they send suffices to the last bit.
        """
        pairs = sum(one.pairs for one in several)
        sums = [
            torch.stack([getattr(one, side) for one in several], dim=1).double()
            for side in ("personalized_sum", "neutral_sum")
        ]
        p, n = (side.sum(1) / pairs for side in sums)
        weights = torch.tensor([float(one.pairs) for one in several], dtype=torch.double)[:, None]
        rows = (sums[0] - sums[1]) / weights.sqrt() - weights.sqrt() * (p - n)[:, None]
        axes = _axes(rows, RANK)
        energy = (rows @ axes.mT).square().sum((1, 2)) / pairs
        return cls(p, n, axes, energy.sqrt().clamp(min=torch.finfo(torch.float32).eps) / 2)

    def coordinates(
        self, personalized: torch.Tensor, neutral: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(layers, pairs, d) each to (layers, pairs, rank)."""
        p = (personalized - self.personalized_mean[:, None]) @ self.axes.mT
        n = (neutral - self.neutral_mean[:, None]) @ self.axes.mT
        return p / self.scale[:, None, None], n / self.scale[:, None, None]


@dataclass(frozen=True)
class Probe:
    """A probe per layer."""

    theta: torch.Tensor
    """(layers, d)."""
    loss: torch.Tensor
    """(layers,), mean over pairs."""


def terms(z_p: torch.Tensor, z_n: torch.Tensor) -> torch.Tensor:
    """The loss of each pair from a probe's logits of its two sides, of one shape."""
    p, n = torch.sigmoid(z_p), torch.sigmoid(z_n)
    loss: torch.Tensor = (n - (1 - p)) ** 2 + torch.minimum(p, n) ** 2
    return loss


def evaluate(p: torch.Tensor, n: torch.Tensor, probes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over pairs of the loss (layers, restarts), and of its gradient, of the shape of `probes`.

    p, n: (layers, pairs, rank) coordinates. probes: (layers, rank + 1, restarts), the last row the bias.
    """
    with torch.enable_grad():
        probes = probes.detach().requires_grad_()
        theta, bias = probes[:, :-1], probes[:, -1:]
        loss = terms(p @ theta + bias, n @ theta + bias).sum(1)
        (gradient,) = torch.autograd.grad(loss.sum(), probes)
    return loss.detach(), gradient


Evaluate = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""From probes to the mean loss (layers, restarts) over everyone's pairs and its gradient."""


def minimise(
    evaluate: Evaluate, frame: Frame, seed: int, *, restarts: int = RESTARTS, evaluations: int = EVALUATIONS
) -> Probe:
    """L-BFGS from seeded starts, all layers and restarts as one; per layer the lowest loss is taken."""
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

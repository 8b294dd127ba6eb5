"""How people would differ if each answer's odds were a matter of taste, independently of all other answers.

What label c is worth to a person is taken to vary by t nats. To first order coordinates theta move the
labels' log probabilities, less their mean, by G theta; the least coordinates that move them as such tastes
do vary by

    t^2 G^+ G^+^T        G: (labels, n), G^+ its pseudoinverse

so that people may prefer what no public person preferred.
"""

import torch

_WEAKEST = 1e-2
"""Singular values of G below this share of the largest are not inverted: what hardly moves any odds would
have to vary beyond what the first order tells."""


def odds_covariance(gradients: torch.Tensor, nats: float) -> torch.Tensor:
    """Return the covariance of coordinates that such tastes make.

    Args:
        gradients: Gradient of each label's log probability by the coordinates: (labels, n).
        nats: Deviation of each label's worth between people.

    Returns:
        (n, n) fp64, of rank labels - 1 at most; noughts where nothing moves the odds.
    """
    moved = gradients.double() - gradients.double().mean(dim=0)
    _, values, axes = torch.linalg.svd(moved, full_matrices=False)
    kept = values > _WEAKEST * values[:1].clamp(min=1e-30)
    inverse = axes[kept] / values[kept, None]
    covariance: torch.Tensor = nats**2 * inverse.T @ inverse
    return covariance

"""A covariance under which each label's worth is a matter of taste."""

import pytest
import torch

from fedperfit.protocol.people.odds import odds_covariance


def gradients(labels: int = 5, numbers: int = 12) -> torch.Tensor:
    return torch.randn(labels, numbers, generator=torch.Generator().manual_seed(3))


def test_labels_odds_vary_alike_and_independently() -> None:
    G, nats = gradients().double(), 1.7
    moved = G - G.mean(0)
    independent = nats**2 * (torch.eye(5).double() - 1 / 5)  # worths less their mean
    made = moved @ odds_covariance(G, nats) @ moved.T
    torch.testing.assert_close(made, independent, rtol=1e-6, atol=1e-9)


def test_no_coordinates_vary_that_move_no_odds() -> None:
    G = gradients().double()
    outside = torch.eye(12).double() - torch.linalg.pinv(G - G.mean(0)) @ (G - G.mean(0))
    covariance = odds_covariance(G, 2.0)
    torch.testing.assert_close(covariance @ outside, torch.zeros(12, 12).double(), rtol=0, atol=1e-9)
    alike = G + torch.randn(12, generator=torch.Generator().manual_seed(4)).double()
    torch.testing.assert_close(odds_covariance(alike, 2.0), covariance, rtol=1e-6, atol=1e-9)


def test_directions_that_hardly_move_odds_are_not_blown_up() -> None:
    axes = torch.eye(4).double()
    G = torch.stack([axes[0], -axes[0], 1e-6 * axes[1], -1e-6 * axes[1]])
    assert float(odds_covariance(G, 1.0).max()) == pytest.approx(0.5)
    assert not odds_covariance(torch.zeros(3, 4), 1.0).any()

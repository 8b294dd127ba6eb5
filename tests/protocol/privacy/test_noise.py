"""Noise is normal, the same from the same secret, and unlike anything from another."""

import pytest
import torch

from fedperfit.protocol.privacy.noise import coins, new_secret, normal

SECRET = bytes(range(32))


def test_a_million_draws_are_normal() -> None:
    numbers = normal(SECRET, "round/1", 1_000_000)
    mean, variance = float(numbers.mean()), float(numbers.var())
    assert abs(mean) < 0.01
    assert abs(variance - 1) < 0.02
    kurtosis = float(((numbers - mean) ** 4).mean()) / variance**2
    assert abs(kurtosis - 3) < 0.1
    assert abs(float((numbers > 1.6448536).double().mean()) - 0.05) < 0.001
    assert bool(numbers.isfinite().all())


def test_neighbouring_draws_and_labels_are_unrelated() -> None:
    one, two = normal(SECRET, "round/1", 100_000), normal(SECRET, "round/2", 100_000)
    for left, right in ((one[1:], one[:-1]), (one, two), (one.abs(), two.abs())):
        assert abs(float(torch.corrcoef(torch.stack([left, right]))[0, 1])) < 0.015


def test_the_secret_and_the_label_decide() -> None:
    assert torch.equal(normal(SECRET, "a", 8), normal(SECRET, "a", 8))
    assert torch.equal(normal(SECRET, "a", 8)[:4], normal(SECRET, "a", 4))
    assert not torch.equal(normal(SECRET, "a", 8), normal(new_secret(), "a", 8))
    with pytest.raises(ValueError, match="secret"):
        normal(b"short", "a", 8)


def test_coins_fall_with_their_rate() -> None:
    assert sum(coins(SECRET, "coins", 100_000, 0.3)) == pytest.approx(30_000, rel=0.02)
    assert not any(coins(SECRET, "coins", 1000, 0.0))
    assert all(coins(SECRET, "coins", 1000, 1.0))

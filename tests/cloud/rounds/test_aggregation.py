import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cloud.fake_grid import perturbed

from fedperfit.cloud.rounds.aggregation import aggregate, polar
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift

shapes = st.builds(
    lambda layers, rank, extra: ShiftShape(
        layers=tuple(range(layers)), rank=rank, hidden_size=rank + extra, positions=Positions(0, 7)
    ),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 6),
)
weights = st.lists(st.integers(1, 50), min_size=1, max_size=5)


def shifts_around(shape: ShiftShape, count: int, seed: int) -> list[Shift]:
    start = Shift.identity(shape, seed=seed)
    return [perturbed(start, f"{seed}/{index}") for index in range(count)]


def rotated(shift: Shift, seed: int) -> Shift:
    """Return the same map in another gauge: (Q R, Q W, Q b)."""
    generator = torch.Generator().manual_seed(seed)
    size = (len(shift.shape.layers), shift.shape.rank, shift.shape.rank)
    Q = torch.linalg.qr(torch.randn(size, generator=generator, dtype=torch.float64)).Q
    R, W, b = shift.R.double(), shift.W.double(), shift.b.double().unsqueeze(-1)
    return Shift(
        shift.shape,
        R=(Q @ R).detach().float(),
        W=(Q @ W).detach().float(),
        b=(Q @ b).squeeze(-1).detach().float(),
    )


def dense(shift: Shift) -> tuple[torch.Tensor, torch.Tensor]:
    """The map and offset in full: R^T (W - R), (layers, d, d), and R^T b, (layers, d)."""
    R, W, b = (t.detach().double() for t in (shift.R, shift.W, shift.b))
    return R.mT @ (W - R), (R.mT @ b.unsqueeze(-1)).squeeze(-1)


def oracle(updates: list[tuple[Shift, float]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """R, R^T (W - R) and R^T b of the mean, with d x d matrices and the inverse root by eigh."""
    total = sum(weight for _, weight in updates)
    S = sum(weight / total * shift.R.detach().double() for shift, weight in updates)
    values, vectors = torch.linalg.eigh(S @ S.mT)
    R = vectors @ torch.diag_embed(values.rsqrt()) @ vectors.mT @ S
    maps = sum(weight / total * dense(shift)[0] for shift, weight in updates)
    offsets = sum(weight / total * dense(shift)[1] for shift, weight in updates)
    projection = R.mT @ R
    return R, projection @ maps, (projection @ offsets.unsqueeze(-1)).squeeze(-1)


@settings(max_examples=40, deadline=None)
@given(shapes, weights, st.integers(0, 1000))
def test_equals_the_dense_oracle(shape: ShiftShape, counts: list[int], seed: int) -> None:
    updates = list(zip(shifts_around(shape, len(counts), seed), map(float, counts), strict=True))
    R, maps, offsets = oracle(updates)
    result = aggregate(updates)
    assert result.R.dtype == result.W.dtype == result.b.dtype == torch.float32
    torch.testing.assert_close(result.R.detach().double(), R, atol=1e-5, rtol=0)
    torch.testing.assert_close(dense(result)[0], maps, atol=1e-5, rtol=0)
    torch.testing.assert_close(dense(result)[1], offsets, atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(shapes, weights, st.integers(0, 1000))
def test_identical_updates_are_their_own_mean(shape: ShiftShape, counts: list[int], seed: int) -> None:
    (shift,) = shifts_around(shape, 1, seed)
    result = aggregate([(shift, float(count)) for count in counts])
    for mean, one in ((result.R, shift.R), (result.W, shift.W), (result.b, shift.b)):
        torch.testing.assert_close(mean, one, atol=1e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(shapes, weights, st.integers(0, 1000))
def test_rows_stay_orthonormal(shape: ShiftShape, counts: list[int], seed: int) -> None:
    shifts = [rotated(s, seed + i) for i, s in enumerate(shifts_around(shape, len(counts), seed))]
    R = aggregate(list(zip(shifts, map(float, counts), strict=True))).R
    assert (R @ R.mT - torch.eye(shape.rank)).abs().max() < 1e-5


def test_opposite_bases_leave_orthonormal_rows_and_finite_values() -> None:
    shape = ShiftShape(layers=(0,), rank=2, hidden_size=5, positions=Positions(0, 7))
    (shift,) = shifts_around(shape, 1, 0)
    opposite = Shift(shape, R=-shift.R.detach(), W=-shift.W.detach(), b=-shift.b.detach())
    result = aggregate([(shift, 1.0), (opposite, 1.0)])
    assert all(bool(t.isfinite().all()) for t in (result.R, result.W, result.b))
    assert (result.R @ result.R.mT - torch.eye(2)).abs().max() < 1e-5


def test_the_maps_do_not_depend_on_a_gauge_given_the_basis() -> None:
    shape = ShiftShape(layers=(0, 1), rank=3, hidden_size=8, positions=Positions(0, 7))
    first, second = shifts_around(shape, 2, 3)
    # the first client's weight decides R to within 1e-9, so only the gauge of the second varies
    plain = aggregate([(first, 1e9), (second, 1.0)])
    turned = aggregate([(first, 1e9), (rotated(second, 5), 1.0)])
    torch.testing.assert_close(plain.W, turned.W, atol=1e-6, rtol=0)
    shared = Shift(shape, R=first.R.detach(), W=second.W.detach(), b=second.b.detach())
    exact = aggregate([(first, 1.0), (rotated(shared, 6), 3.0), (shared, 0.001)])
    maps = (dense(first)[0] + 3.001 * dense(shared)[0]) / 4.001
    projection = exact.R.detach().double().mT @ exact.R.detach().double()
    torch.testing.assert_close(dense(exact)[0], projection @ maps, atol=1e-5, rtol=0)


def test_sorted_updates_give_the_same_bits_in_any_order_of_arrival() -> None:
    shape = ShiftShape(layers=(0, 1), rank=3, hidden_size=8, positions=Positions(0, 7))
    named = dict(zip("dbca", shifts_around(shape, 4, 1), strict=True))
    arrivals = [list("dbca"), list("abcd"), list("cadb")]
    results = [aggregate([(named[name], 2.0) for name in sorted(order)]) for order in arrivals]
    for result in results[1:]:
        assert torch.equal(result.R, results[0].R)
        assert torch.equal(result.W, results[0].W)
        assert torch.equal(result.b, results[0].b)


@pytest.mark.parametrize("scale", [0.001, 3.0, 1e9])
def test_only_weight_ratios_matter(scale: float) -> None:
    shape = ShiftShape(layers=(0,), rank=2, hidden_size=6, positions=Positions(0, 7))
    updates = [
        (shift, weight) for shift, weight in zip(shifts_around(shape, 3, 2), (1.0, 2.0, 5.0), strict=True)
    ]
    plain, scaled = aggregate(updates), aggregate([(s, scale * w) for s, w in updates])
    torch.testing.assert_close(plain.W, scaled.W, atol=1e-6, rtol=0)


def test_polar_is_the_nearest_matrix_with_orthonormal_rows() -> None:
    S = torch.randn(4, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near = (polar(S) - S).norm()
    for seed in range(20):
        other = torch.randn(4, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert near <= (torch.linalg.qr(other).Q.mT - S).norm()


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_refuses_a_weight_that_is_no_weight(weight: float) -> None:
    shape = ShiftShape(layers=(0,), rank=1, hidden_size=2, positions=Positions(0, 7))
    with pytest.raises(ValueError, match="weight"):
        aggregate([(Shift.identity(shape, seed=0), weight)])


def test_refuses_nothing_and_mixed_shapes() -> None:
    one = ShiftShape(layers=(0,), rank=1, hidden_size=2, positions=Positions(0, 7))
    two = ShiftShape(layers=(0,), rank=2, hidden_size=2, positions=Positions(0, 7))
    with pytest.raises(ValueError, match="no updates"):
        aggregate([])
    with pytest.raises(ValueError, match="shapes"):
        aggregate([(Shift.identity(one, seed=0), 1.0), (Shift.identity(two, seed=0), 1.0)])

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedperfit.cloud.rounds.aggregation import aggregate
from fedperfit.cloud.rounds.robust import RULES, TooFew, assumed, needed, robust
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift

SHAPE = ShiftShape(layers=(1, 2), rank=3, hidden_size=8, positions=Positions.parse("l7"))
ROBUST = RULES[1:]
REFERENCE = Shift.identity(SHAPE, seed=0)


def near(seed: int, spread: float = 0.05) -> Shift:
    """Change the reference as an honest client's training does."""
    generator = torch.Generator().manual_seed(seed)
    shift = Shift.identity(SHAPE, seed=0)
    with torch.no_grad():
        for tensor in shift.parameters():
            tensor += spread * torch.randn(tensor.shape, generator=generator)
        shift.W += 0.3
        shift.retract()
    return shift


def turned(shift: Shift, seed: int) -> Shift:
    """Return the same function in another gauge."""
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(len(SHAPE.layers), SHAPE.rank, SHAPE.rank, generator=generator))
    b = (Q @ shift.b.detach().unsqueeze(-1)).squeeze(-1)
    return Shift(SHAPE, R=Q @ shift.R.detach(), W=Q @ shift.W.detach(), b=b)


def maps(shift: Shift) -> torch.Tensor:
    """(layers, d, d + 1): what a shift does, whatever its gauge."""
    R, W, b = (getattr(shift, name).detach().double() for name in ("R", "W", "b"))
    return torch.cat([R.mT @ (W - R), R.mT @ b.unsqueeze(-1)], dim=-1)


def distance(one: Shift, other: Shift) -> float:
    return float((maps(one) - maps(other)).norm())


@pytest.mark.parametrize("rule", ROBUST)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_neither_gauge_nor_order_matters(rule, seed):
    honest = [near(seed + n) for n in range(7)]
    plain = robust(rule, honest, 0.2, REFERENCE)
    other = [turned(shift, n) for n, shift in enumerate(honest)]
    rng = np.random.default_rng(seed)
    other = [other[n] for n in rng.permutation(7)]
    assert distance(plain, robust(rule, other, 0.2, REFERENCE)) < 1e-5


@pytest.mark.parametrize("rule", ROBUST)
def test_rows_stay_orthonormal_and_equal_updates_stay_what_they_are(rule):
    result = robust(rule, [near(n) for n in range(7)], 0.2, REFERENCE)
    assert torch.allclose(result.R @ result.R.mT, torch.eye(SHAPE.rank), atol=1e-5)
    assert distance(robust(rule, [near(1)] * 7, 0.2, REFERENCE), near(1)) < 1e-5


def liars(seed: int) -> list[Shift]:
    """Within the gate's bounds, and as far as it goes."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for n in range(2):
        shift = Shift.identity(SHAPE, seed=seed + n + 1)
        with torch.no_grad():
            change = torch.randn(shift.W.shape, generator=generator)
            shift.W += 90 * change / change.norm()
            shift.b += 90 / shift.b.numel() ** 0.5
        found.append(shift)
    return found


@pytest.mark.parametrize("rule", ROBUST)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_liars_lead_no_further_than_the_honest_differ(rule, seed):
    honest = [near(seed + n) for n in range(8)]
    middle = aggregate([(shift, 1.0) for shift in honest])
    spread = max(distance(middle, shift) for shift in honest)
    everyone = [*honest, *liars(seed)]
    assert distance(robust(rule, everyone, 0.2, REFERENCE), middle) <= 2 * spread
    assert distance(aggregate([(shift, 1.0) for shift in everyone]), middle) > 10 * spread


def test_multi_krum_is_the_mean_of_those_it_keeps():
    honest = [near(n) for n in range(8)]
    kept = robust("multi-krum", [*honest, *liars(3)], 0.2, REFERENCE)
    mean = aggregate([(shift, 1.0) for shift in honest])
    assert distance(kept, mean) < 1e-2 * distance(mean, REFERENCE)  # R is averaged in another gauge


def test_krum_takes_one_of_the_honest():
    honest = [near(n) for n in range(8)]
    chosen = robust("krum", [*liars(3), *honest], 0.2, REFERENCE)
    assert min(distance(chosen, shift) for shift in honest) < 1e-5


def anywhere(seed: int) -> Shift:
    """A shift on rows of its own, so that nothing can be read off its tensors alone."""
    shift = Shift.identity(SHAPE, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (shift.W, shift.b):
            tensor += torch.randn(tensor.shape, generator=generator)
    return shift


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_krum_chooses_by_distances_of_whole_maps(seed):
    shifts = [anywhere(seed * 7 + n) for n in range(7)]
    distances = np.array([[distance(one, other) ** 2 for other in shifts] for one in shifts])
    scores = np.sort(distances, axis=1)[:, 1:4].sum(axis=1)  # to the n - f - 2 = 3 nearest
    chosen = robust("krum", shifts, 0.2, REFERENCE)
    assert distance(chosen, shifts[int(scores.argmin())]) < 1e-5


@pytest.mark.parametrize("rule", ["median", "trimmed-mean"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_entries_are_those_of_whole_maps_on_the_rows_of_the_result(rule, seed):
    shifts = [anywhere(seed * 7 + n) for n in range(7)]

    def middle(tensors: list[torch.Tensor]) -> torch.Tensor:
        ordered = torch.stack(tensors).sort(dim=0).values  # two of seven may lie
        return ordered[3] if rule == "median" else ordered[2:-2].mean(dim=0)

    def aligned(shift: Shift) -> torch.Tensor:
        R, R_0 = shift.R.detach().double(), REFERENCE.R.detach().double()
        return torch.stack([_procrustes(R[n], R_0[n]) @ R[n] for n in range(len(SHAPE.layers))])

    result = robust(rule, shifts, 0.2, REFERENCE)
    R = result.R.detach().double()
    expected = middle([aligned(shift) for shift in shifts])
    for n in range(len(SHAPE.layers)):
        S = expected[n]
        assert torch.allclose(R[n], torch.linalg.inv(_root(S @ S.mT)) @ S, atol=1e-4)
    entries = middle([R @ maps(shift) for shift in shifts])
    assert torch.allclose(torch.cat([result.W - R, result.b.unsqueeze(-1)], dim=-1), entries, atol=1e-4)


def _root(matrix: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ values.sqrt().diag() @ vectors.mT


def _procrustes(R: torch.Tensor, R_0: torch.Tensor) -> torch.Tensor:
    """The orthogonal Q (r, r) for which Q R is nearest to R_0."""
    A = R_0 @ R.mT
    return torch.linalg.inv(_root(A @ A.mT)) @ A


def test_median_and_trimmed_mean_in_a_common_gauge():
    scaled = [near(1) for _ in range(5)]
    with torch.no_grad():
        for n, shift in enumerate(scaled):
            shift.W.copy_(shift.R + [0, 1, 2, 6, 1000][n] * 0.01)
            shift.b.fill_(n)
    for rule, factor in (("median", 2.0), ("trimmed-mean", 3.0)):
        result = robust(rule, scaled, 0.2, near(1))
        expected = Shift(SHAPE, R=result.R.data, W=result.R.data + factor * 0.01, b=torch.full((2, 3), 2.0))
        assert distance(result, expected) < 1e-5


@pytest.mark.parametrize("rule", ROBUST)
def test_too_few_to_tell(rule):
    needs = 7 if "krum" in rule else 5
    with pytest.raises(TooFew, match=f"needs {needs} updates"):
        robust(rule, [near(n) for n in range(4)], 0.4, REFERENCE)


@pytest.mark.parametrize("rule", ROBUST)
def test_with_the_fewest_updates_it_can_do_with_it_still_holds(rule):
    for share in (0.1, 0.2, 0.3, 0.4):
        least = next((n for n in range(1, 40) if n >= needed(rule, n, share)), None)
        if least is None:
            assert "krum" in rule  # never has 2 f + 3 of them
            continue
        lying = assumed(least, share)
        honest = [near(n) for n in range(least - lying)]
        middle = aggregate([(shift, 1.0) for shift in honest])
        spread = max(distance(middle, shift) for shift in honest)
        result = robust(rule, [*honest, *(liars(3) * lying)[:lying]], share, REFERENCE)
        assert distance(result, middle) <= 2 * spread


def test_how_many_may_lie():
    assert [assumed(n, 0.2) for n in (1, 5, 6, 10, 20)] == [1, 1, 2, 2, 4]
    assert assumed(10, 0.0) == 0

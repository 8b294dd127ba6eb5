"""Directions that are planted are found; what people send suffices to find those of all their pairs."""

import pytest
import torch

from fedperfit.protocol.shift.probe import RANK, Frame, Moments, Probe, evaluate, leading, minimise, terms

LAYERS = 2
Pairs = tuple[torch.Tensor, torch.Tensor]


def planted(
    people: int, pairs: int, size: int, noise: float, seed: int = 0
) -> tuple[list[Pairs], torch.Tensor]:
    """States p = m_P + s u + noise, n = m_N - s u + noise, s = +-1 by pair; and u (layers, d)."""
    start = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=start)

    u = torch.nn.functional.normalize(draw(LAYERS, size), dim=1)
    m = 3 * draw(LAYERS, 2, 1, size)
    found = []
    for _ in range(people):
        s = torch.randint(0, 2, (LAYERS, pairs, 1), generator=start) * 2.0 - 1
        found.append(
            (
                m[:, 0] + s * u[:, None] + noise * draw(LAYERS, pairs, size),
                m[:, 1] - s * u[:, None] + noise * draw(LAYERS, pairs, size),
            )
        )
    return found, u


def pooled(people: list[Pairs]) -> Pairs:
    p, n = (torch.cat([person[side] for person in people], dim=1) for side in (0, 1))
    return p, n


def probe(people: list[Pairs], contributors: list[Pairs], seed: int = 0) -> Probe:
    """Make the probe of everyone's pairs, each person evaluating alone."""
    frame = Frame.of([Moments.of(*one) for one in contributors])
    coordinates = [frame.coordinates(*one) for one in people]
    count = sum(p.shape[1] for p, _ in people)

    def everyone(probes: torch.Tensor) -> Pairs:
        told = [evaluate(p, n, probes) for p, n in coordinates]
        return sum(loss for loss, _ in told) / count, sum(g for _, g in told) / count  # type: ignore[return-value]

    return minimise(everyone, frame, seed)


def cosines(one: torch.Tensor, other: torch.Tensor) -> list[float]:
    return torch.cosine_similarity(one.double(), other.double(), dim=1).abs().tolist()


@pytest.mark.parametrize("size", [64, 192])
def test_svd_finds_the_direction_the_states_lie_along(size):
    """p = 3 s u + noise of .3 in every coordinate: no mean, so that u alone is there to be found."""
    start = torch.Generator().manual_seed(1)
    u = torch.nn.functional.normalize(torch.randn(LAYERS, size, generator=start), dim=1)
    p = 3 * torch.randn(LAYERS, 200, 1, generator=start) * u[:, None]
    p = p + 0.3 * torch.randn(p.shape, generator=start)
    assert min(cosines(leading([Moments.of(p, p)]), u)) > 0.99
    parts = [Moments.of(part, part, rows=2) for part in p.split(10, dim=1)]
    assert min(cosines(leading(parts), leading([Moments.of(p, p)]))) > 0.999


@pytest.mark.parametrize(("size", "noise"), [(64, 0.1), (192, 0.05)])
@pytest.mark.parametrize("by_person", [True, False])
def test_ccs_finds_the_direction_the_pairs_differ_along(size, noise, by_person):
    people, u = planted(50, 8, size, noise)
    singly = [(p[:, None], n[:, None]) for p, n in zip(*(s.unbind(1) for s in pooled(people)), strict=True)]
    found = probe(people, people if by_person else singly)
    assert min(cosines(found.theta, u)) > 0.99


def test_many_peoples_probe_is_that_of_their_pooled_pairs():
    people, _ = planted(30, 5, 48, 1.0)
    apart, together = probe(people, people), probe([pooled(people)], people)
    assert min(cosines(apart.theta, together.theta)) > 1 - 1e-6
    torch.testing.assert_close(apart.loss, together.loss)


def test_the_loss_is_consistency_and_confidence():
    p, n = torch.rand(6), torch.rand(6)
    expected = (n - (1 - p)) ** 2 + torch.minimum(p, n) ** 2
    torch.testing.assert_close(terms(torch.logit(p), torch.logit(n)), expected, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_that_of_the_loss():
    start = torch.Generator().manual_seed(0)
    p, n = (torch.randn(LAYERS, 6, 3, generator=start).double() for _ in range(2))
    probes = torch.randn(LAYERS, 4, 2, generator=start).double()
    loss, gradient = evaluate(p, n, probes)
    step = 1e-6 * torch.randn(probes.shape, generator=start).double()
    moved = evaluate(p, n, probes + step)[0] - evaluate(p, n, probes - step)[0]
    torch.testing.assert_close(moved.sum(), 2 * (gradient * step).sum(), rtol=1e-4, atol=1e-12)
    assert loss.shape == (LAYERS, 2)


def test_the_search_ends_lower_than_it_began_and_does_not_depend_on_the_axes_basis():
    people, _ = planted(20, 5, 32, 0.5)
    frame = Frame.of([Moments.of(*one) for one in people])
    turn = torch.linalg.qr(torch.randn(RANK, RANK, dtype=torch.double)).Q
    turned = Frame(frame.personalized_mean, frame.neutral_mean, turn @ frame.axes, frame.scale)
    found = []
    for one in (frame, turned):
        p, n = one.coordinates(*pooled(people))

        def everyone(probes: torch.Tensor, p: torch.Tensor = p, n: torch.Tensor = n) -> Pairs:
            loss, gradient = evaluate(p, n, probes)
            return loss / 100, gradient / 100

        found.append((minimise(everyone, one, 0), minimise(everyone, one, 0, evaluations=1)))
    (best, started), (other, _) = found
    assert (best.loss < started.loss).all()
    assert min(cosines(best.theta, other.theta)) > 0.999


def test_rows_hold_the_leading_part():
    p = torch.randn(LAYERS, 9, 20)
    kept = Moments.of(p, p, rows=3)
    assert kept.rows.shape == (LAYERS, 3, 20)
    exact = torch.linalg.svdvals(p)[:, :3]
    torch.testing.assert_close(kept.rows.norm(dim=2), exact, rtol=1e-4, atol=1e-4)
    assert torch.equal(Moments.of(p, p).rows, p)

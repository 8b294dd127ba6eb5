"""What travels for the group's directions: round trips, and one line for whatever else comes."""

from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzzing import FUZZED

from fedperfit.protocol.messages.settings import ROWS
from fedperfit.protocol.messages.statistics import (
    View,
    layer_gradient_from_bytes,
    layer_gradient_to_bytes,
    moments_from_bytes,
    moments_to_bytes,
    probes_from_bytes,
    sums_from_bytes,
    sums_to_bytes,
    to_bytes,
)
from fedperfit.protocol.shift.probe import Frame, Moments, evaluate
from fedperfit.protocol.shift.selection import LayerGradient
from fedperfit.protocol.system.errors import InputError

LAYERS, SIZE = 3, 16


def people(count: int = 5) -> list[tuple[torch.Tensor, torch.Tensor]]:
    start = torch.Generator().manual_seed(0)
    return [
        (3 + torch.randn(LAYERS, 6, SIZE, generator=start), torch.randn(LAYERS, 6, SIZE, generator=start))
        for _ in range(count)
    ]


def view(count: int = 5) -> View:
    return View.of(Frame.of([Moments.of(*one) for one in people(count)]))


def test_moments_round_trip():
    told = Moments.of(*people()[0], rows=ROWS)
    data = moments_to_bytes(told)
    assert len(data) == LAYERS * SIZE * (2 + ROWS) * 4
    found = moments_from_bytes(data, 6, LAYERS, SIZE)
    assert found.pairs == 6
    for name in ("personalized_sum", "neutral_sum", "rows"):
        assert torch.equal(getattr(found, name), getattr(told, name))


def test_a_pull_round_trips():
    told = LayerGradient(torch.randn(LAYERS, SIZE), torch.rand(LAYERS), 7)
    data = layer_gradient_to_bytes(told)
    assert len(data) == LAYERS * (SIZE + 1) * 4
    found = layer_gradient_from_bytes(data, 7, LAYERS, SIZE)
    assert found.pairs == 7
    assert torch.equal(found.gradient, told.gradient)
    assert torch.equal(found.length, told.length)


@pytest.mark.parametrize("count", [2, 5, 12])
def test_a_view_round_trips_and_sees_what_the_frame_sees(count):
    seen = view(count)
    data = seen.to_bytes()
    again = View.from_bytes(data, LAYERS, SIZE)
    for name in ("axes", "offsets", "scale"):
        assert torch.equal(getattr(again, name), getattr(seen, name))
    frame = Frame.of([Moments.of(*one) for one in people(count)])
    for one, other in zip(again.coordinates(*people()[1]), frame.coordinates(*people()[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=5e-3)


def test_each_side_is_centred_by_its_own_mean_to_more_than_fp16():
    everyone = people()
    p, n = view().coordinates(*(torch.cat([one[side] for one in everyone], dim=1) for side in (0, 1)))
    assert max(float(p.mean(1).abs().max()), float(n.mean(1).abs().max())) < 1e-6


def test_probes_and_sums_round_trip():
    p, n = view().coordinates(*people()[0])
    probes = torch.randn(LAYERS, p.shape[2] + 1, 2).double()
    asked = probes_from_bytes(to_bytes(probes), LAYERS, p.shape[2])
    assert torch.equal(asked, probes.float().double())
    loss, gradient = evaluate(p, n, asked)
    found = sums_from_bytes(sums_to_bytes(loss, gradient), asked)
    assert all(torch.equal(one, other) for one, other in zip(found, (loss, gradient), strict=True))


READERS = {
    "moments": (
        moments_to_bytes(Moments.of(*people()[0], rows=ROWS)),
        lambda d: moments_from_bytes(d, 6, 3, 16),
    ),
    "view": (view().to_bytes(), lambda d: View.from_bytes(d, LAYERS, SIZE)),
    "probes": (to_bytes(torch.randn(LAYERS, 6, 2)), lambda d: probes_from_bytes(d, LAYERS, 5)),
    "sums": (
        sums_to_bytes(torch.rand(LAYERS, 2), torch.randn(LAYERS, 6, 2)),
        lambda d: sums_from_bytes(d, torch.zeros(LAYERS, 6, 2)),
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_other_lengths_and_values_that_are_not_finite_are_refused(name):
    data, read = READERS[name]
    read(data)
    for wrong in (b"", data[:-1], data + b"\x00", data[: len(data) // 2 - 1]):
        with pytest.raises(InputError, match=r"bytes"):
            read(wrong)
    width = 8 if name == "sums" else 4
    for value in (float("nan"), float("inf")):
        number = torch.tensor([value], dtype=torch.double if width == 8 else torch.float).numpy().tobytes()
        with pytest.raises(InputError, match="not finite"):
            read(data[:-width] + number)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_view_that_would_divide_by_nothing_is_refused(scale):
    data = View(view().axes, view().offsets, torch.full((LAYERS,), scale)).to_bytes()
    with pytest.raises(InputError, match="not positive"):
        View.from_bytes(data, LAYERS, SIZE)


@FUZZED
@given(st.sampled_from(sorted(READERS)), st.data())
def test_fuzzed_bytes_are_values_or_one_line(name, draw):
    data, read = READERS[name]
    start, cut = draw.draw(st.integers(0, len(data))), draw.draw(st.sampled_from((0, 1, 4, 8, 96)))
    inserted = draw.draw(st.binary(max_size=16) | st.binary(min_size=cut, max_size=cut))
    with suppress(InputError):
        read(data[:start] + inserted + data[start + cut :])

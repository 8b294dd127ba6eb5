"""PerFit's parameter table, number by number (shared/reference.md, section 1)."""

import pytest

from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError

HIDDEN = 4096
LLAMA_2_7B = 6_738_415_616

# task: (r, n, parameters, percent of the model, percent less than OPPU), collective then personal
TABLE = {
    "LaMP-2N": ((16, 3, 393_264, ".0058", "93.75"), (32, 3, 786_528, ".0117", "81.25")),
    "LaMP-2M": ((32, 2, 524_352, ".0078", "91.67"), (4, 2, 65_544, ".0010", "98.44")),
    "LaMP-3": ((32, 3, 786_528, ".0117", "87.50"), (4, 3, 98_316, ".0015", "97.66")),
    "LaMP-4": ((32, 3, 786_528, ".0117", "87.50"), (4, 3, 98_316, ".0015", "97.66")),
    "LaMP-5": ((16, 2, 262_176, ".0039", "95.83"), (4, 2, 65_544, ".0010", "98.44")),
    "LaMP-7": ((32, 2, 524_352, ".0078", "91.67"), (16, 2, 262_176, ".0039", "93.75")),
}
ROWS = [(task, stage, *row) for task, pair in TABLE.items() for stage, row in enumerate(pair)]


def llama_2_7b() -> int:
    """Its parameters, from its dimensions: 32 layers, no grouped heads, untied embeddings."""
    attention, mlp, norms = 4 * HIDDEN**2, 3 * HIDDEN * 11_008, 2 * HIDDEN
    return 32 * (attention + mlp + norms) + 2 * 32_000 * HIDDEN + HIDDEN


def lora(projections: int, rank: int = 8) -> int:
    """LoRA on `projections` square matrices of each of the 32 layers: A (r, d) and B (d, r)."""
    return 32 * projections * 2 * rank * HIDDEN


OPPU = (lora(projections=3), lora(projections=2))  # q, k, v for the task; q, v for a user


def shape(rank: int, layers: int) -> ShiftShape:
    return ShiftShape(
        layers=tuple(range(14, 14 + layers)),
        rank=rank,
        hidden_size=HIDDEN,
        positions=Positions.parse("f7+l7"),
    )


def test_the_yardsticks_follow_from_the_dimensions():
    assert llama_2_7b() == LLAMA_2_7B
    assert OPPU == (6_291_456, 4_194_304)


@pytest.mark.parametrize(("task", "stage", "rank", "layers", "parameters", "share", "less"), ROWS)
def test_table(task, stage, rank, layers, parameters, share, less):
    counted = shape(rank, layers).parameters
    assert counted == parameters
    assert f"{100 * counted / LLAMA_2_7B:.4f}"[1:] == share
    assert f"{100 * (1 - counted / OPPU[stage]):.2f}" == less


def test_averages():
    """The paper prints 92.3 %; its own table gives 92.93 from the printed percentages, 92.92 unrounded."""
    printed = sum(float(less) for *_, less in ROWS) / len(ROWS)
    counts = [(shape(rank, layers).parameters, OPPU[stage]) for _, stage, rank, layers, *_ in ROWS]
    mean = 100 * sum(1 - ours / theirs for ours, theirs in counts) / len(counts)
    total = 100 * (1 - sum(ours for ours, _ in counts) / sum(theirs for _, theirs in counts))
    assert (f"{printed:.2f}", f"{mean:.2f}", f"{total:.2f}") == ("92.93", "92.92", "92.60")


@pytest.mark.parametrize(("layers", "rank", "hidden"), [((0,), 1, 8), ((1, 4), 3, 20), ((0, 1, 2), 8, 8)])
def test_count_is_what_the_tensors_hold(layers, rank, hidden):
    size = ShiftShape(layers=layers, rank=rank, hidden_size=hidden, positions=Positions(0, 1))
    shift = Shift.identity(size, seed=0)
    assert sum(p.numel() for p in shift.parameters()) == size.parameters


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rank": 0}, "rank=0"),
        ({"rank": 33}, "rank=33 is outside 1..32"),
        ({"layers": ()}, "layers is empty"),
        ({"layers": (2, 1)}, "ascending"),
        ({"layers": (1, 1)}, "distinct"),
        ({"layers": (-1, 0)}, "not negative"),
        ({"hidden_size": 0}, "hidden_size=0"),
    ],
)
def test_bad_shapes_are_one_line(change, told):
    good = {"layers": (0,), "rank": 4, "hidden_size": 32, "positions": Positions(0, 1)}
    with pytest.raises(InputError, match=told) as caught:
        ShiftShape(**{**good, **change})
    assert "\n" not in str(caught.value)


def test_tensors_of_another_shape_are_refused(make_shift):
    shift = make_shift((0,), 2, 8)
    with pytest.raises(InputError, match=r"b has shape \(1, 3\), expected \(1, 2\)"):
        Shift(shift.shape, R=shift.R.data, W=shift.W.data, b=shift.b.new_zeros(1, 3))

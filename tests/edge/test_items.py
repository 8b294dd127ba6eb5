import pytest
import torch
from random_items import examples_of

from edge.items import ItemCache, Plan, context_length
from protocol.positions import Positions

LAST, BOTH = Positions.parse("l7"), Positions.parse("f7+l7")


def test_context_lengths():
    assert context_length(range(50), 7) == 43
    assert context_length(range(5), 7) == 0
    assert context_length(range(5), 0) == 4, "the last prompt token predicts the target"


@pytest.mark.parametrize(("positions", "plan"), [(LAST, Plan.CONTEXTS), (BOTH, Plan.STATES)])
def test_sizes_are_known_before_building(base, positions, plan):
    examples = examples_of(6, prefix=9, shortest=8)
    cache = ItemCache(base)
    prepared = cache.prepare([examples], 3, positions)
    assert prepared.plan is plan
    assert prepared.prefix is not None
    shared = len(prepared.prefix)
    assert shared == 10
    assert cache.bytes == sum(cache.size(e, 3, positions, plan, shared) for e in examples)
    assert cache.bytes == sum(item.bytes for item in prepared.items.values())


def test_the_plan_follows_the_budget(base, caplog):
    examples = examples_of(6, prefix=9, shortest=8)
    shared = len(ItemCache(base).prepare([examples], 3, LAST).prefix)
    plans = (Plan.CONTEXTS, Plan.STATES)
    sizes = [sum(ItemCache(base).size(e, 3, LAST, plan, shared) for e in examples) for plan in plans]
    assert sizes[0] > sizes[1]
    for budget, plan in (
        (sizes[0], Plan.CONTEXTS),
        (sizes[0] - 1, Plan.STATES),
        (sizes[1] - 1, Plan.NOTHING),
    ):
        with caplog.at_level("WARNING"):
            cache = ItemCache(base, budget)
            assert cache.prepare([examples], 3, LAST).plan is plan
        assert cache.bytes <= budget
    assert "keeping hidden states" in caplog.text
    assert "keeping nothing" in caplog.text
    assert ItemCache(base, 0).prepare([examples], 3, LAST).plan is Plan.NOTHING


def test_items_are_built_once_and_the_longest_unused_make_room(base):
    early, late = examples_of(4, 1, prefix=9, shortest=8), examples_of(4, 2, prefix=9, shortest=8)
    cache = ItemCache(base)
    first = cache.prepare([early], 3, LAST).items
    again = cache.prepare([early + late], 3, LAST).items
    assert all(again[example] is first[example] for example in early)
    cache.budget = cache.bytes
    cache.prepare([examples_of(2, 3, prefix=9, shortest=8)], 3, LAST)
    assert cache.bytes <= cache.budget
    kept = cache.prepare([late], 3, LAST).items
    assert all(kept[example] is again[example] for example in late)


def test_another_beginning_or_place_forgets_the_items(base):
    examples = examples_of(4, 1, prefix=9, shortest=8)
    cache = ItemCache(base)
    first = cache.prepare([examples], 3, LAST)
    shorter = cache.prepare([examples_of(4, 2, prefix=2, shortest=8)], 3, LAST)
    assert len(shorter.prefix) < len(first.prefix)
    back = cache.prepare([examples], 3, LAST)
    assert back.items[examples[0]] is not first.items[examples[0]]
    assert len(back.prefix) == len(shorter.prefix), "what serves the items kept serves these too"
    above = cache.prepare([examples], 4, LAST)
    assert above.items[examples[0]] is not back.items[examples[0]]


def test_states_are_the_outputs_of_the_entry_layer(base):
    """Against the model's own hidden states of each whole row."""
    examples = examples_of(5, 3, prefix=9, shortest=8)
    for positions in (LAST, BOTH):
        prepared = ItemCache(base).prepare([examples], 3, positions)
        for example in examples:
            ids = torch.tensor([[*example.prompt, *example.target[:-1]]])
            whole = base.model(input_ids=ids, output_hidden_states=True).hidden_states[4][0]
            item = prepared.items[example]
            assert torch.allclose(item.hidden, whole[item.start :], atol=1e-4)

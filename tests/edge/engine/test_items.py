from dataclasses import replace

import pytest
import torch
from tests.edge.random_items import examples_of

from fedperfit.edge.engine.items import PROCESSES_VARIABLE, CachePlan, ItemCache, context_length
from fedperfit.protocol.shift.positions import Positions

LAST, BOTH = Positions.parse("l7"), Positions.parse("f7+l7")


def test_context_lengths():
    assert context_length(range(50), 7) == 43
    assert context_length(range(5), 7) == 0
    assert context_length(range(5), 0) == 4, "the last prompt token predicts the target"


@pytest.mark.parametrize(("positions", "plan"), [(LAST, CachePlan.CONTEXTS), (BOTH, CachePlan.STATES)])
def test_sizes_are_known_before_building(base, positions, plan):
    examples = examples_of(6, prefix=9, shortest=8)
    cache = ItemCache(base)
    prepared = cache.prepare([examples], 3, positions)
    assert prepared.kind.plan is plan
    assert prepared.prefix is not None
    shared = len(prepared.prefix)
    assert shared == 10
    assert cache.bytes == sum(cache.size(example, prepared.kind) for example in examples)
    assert cache.bytes == sum(item.bytes for item in prepared.items.values())


def test_the_plan_follows_the_budget(base, caplog):
    examples = examples_of(6, prefix=9, shortest=8)
    kind = ItemCache(base).prepare([examples], 3, LAST).kind
    kinds = (kind, replace(kind, plan=CachePlan.STATES))
    sizes = [sum(ItemCache(base).size(example, kind) for example in examples) for kind in kinds]
    assert sizes[0] > sizes[1]
    for budget, plan in (
        (sizes[0], CachePlan.CONTEXTS),
        (sizes[0] - 1, CachePlan.STATES),
        (sizes[1] - 1, CachePlan.NOTHING),
    ):
        with caplog.at_level("WARNING"):
            cache = ItemCache(base, budget)
            assert cache.prepare([examples], 3, LAST).kind.plan is plan
        assert cache.bytes <= budget
    assert "too small to keep keys and values" in caplog.text
    assert "too small to keep hidden states" in caplog.text
    assert ItemCache(base, 0).prepare([examples], 3, LAST).kind.plan is CachePlan.NOTHING


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


def test_items_of_several_kinds_live_side_by_side(base):
    examples, others = examples_of(4, 1, prefix=9, shortest=8), examples_of(4, 2, prefix=2, shortest=8)
    cache = ItemCache(base)
    first = cache.prepare([examples], 3, LAST)
    shorter = cache.prepare([others], 3, LAST)
    assert len(shorter.prefix) < len(first.prefix)
    both = cache.prepare([examples, others], 3, LAST)
    assert len(both.prefix) == len(shorter.prefix)
    assert both.items[others[0]] is shorter.items[others[0]]
    assert both.items[examples[0]] is not first.items[examples[0]]
    assert cache.prepare([examples], 3, LAST).items[examples[0]] is first.items[examples[0]]
    above = cache.prepare([examples], 4, LAST)
    assert above.items[examples[0]].bytes < first.items[examples[0]].bytes
    assert cache.bytes == sum(
        item.bytes for kind in (first, shorter, both, above) for item in {**kind.items}.values()
    ) - sum(item.bytes for item in shorter.items.values())


def test_a_known_beginning_makes_items_the_same_in_any_company(base):
    examples = examples_of(4, 1, prefix=9, shortest=8)
    alone, together = ItemCache(base), ItemCache(base)
    known = examples[0].prompt[:10]
    (one,) = alone.prepare([examples[:1]], 3, LAST, known).items.values()
    many = together.prepare([examples[:1], examples[1:]], 3, LAST, known).items
    assert torch.equal(one.hidden, many[examples[0]].hidden)
    assert torch.equal(one.context, many[examples[0]].context)


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


def test_too_many_items_for_contexts_are_still_built_once(base):
    examples = examples_of(6, prefix=9, shortest=8)
    whole = ItemCache(base)
    whole.prepare([examples], 3, LAST)
    cache = ItemCache(base, whole.bytes - 1)
    first = cache.prepare([examples], 3, LAST)
    assert first.kind.plan is CachePlan.STATES
    again = cache.prepare([examples], 3, LAST)
    assert all(again.items[example] is first.items[example] for example in examples)


def test_processes_that_share_a_device_share_its_budget(base, monkeypatch):
    monkeypatch.delenv(PROCESSES_VARIABLE, raising=False)
    alone = ItemCache(base).budget
    monkeypatch.setenv(PROCESSES_VARIABLE, "4")
    assert ItemCache(base).budget == pytest.approx(alone / 4, rel=0.01)

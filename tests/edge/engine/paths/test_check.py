"""The paths that are chosen for a handful of kinds of architectures, tiny and random."""

import logging
import random
from math import inf, nan

import pytest
import torch
from tests.edge.engine.slow_training import slow_loss
from tests.edge.moved_shift import moved
from tests.edge.random_items import examples_of
from tools.architectures import checked_row
from tools.tiny_architectures import tiny_model

from fedperfit.edge.engine.answering import score_labels
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.paths import check
from fedperfit.edge.engine.paths.check import checked
from fedperfit.edge.engine.paths.path import Path, Paths
from fedperfit.edge.engine.slab import BatchPositions, Stack
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.system.errors import InputError

L7 = Positions.parse("l7")


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("falcon", "fast"),  # layers that return tuples
        ("deepseek_v3", "fast"),  # keys and values of unequal width
        ("llama4_text", "fast"),  # chunks
        ("gpt_neo", "fast"),  # a window under another name
        ("bloom", "plain"),  # no longest input; masks of two dimensions only
        ("rwkv", "plain"),  # no attention, and padding counts
        ("gemma4_text", "fast"),  # layers of different widths, embeddings of tokens in every layer
        ("deepseek_v4", "refused"),  # several hidden states per token
        ("roberta", "refused"),  # positions that do not begin at 0
    ],
)
def test_every_kind_is_right_or_one_line(name, state):
    row = checked_row(name, tiny_model(name))
    assert row.state == state, row.told
    assert "\n" not in row.told


@pytest.fixture
def rwkv():
    """A model with which everything but generating alone goes wrong on the fast path."""
    return tiny_model("rwkv")


def test_training_and_labels_on_the_plain_path_equal_whole_rows(rwkv, training):
    examples = examples_of(4, prefix=9)
    shape = ShiftShape(layers=(1, 2), rank=3, hidden_size=32, positions=L7)
    ours, oracle = moved(shape, 1), moved(shape, 1)
    (done,) = fit([FitJob(ours, examples, "0")], training, ItemCache(rwkv))
    assert done.loss == pytest.approx(slow_rows_fit(rwkv, oracle, examples, training), rel=1e-4)
    assert (ours.W - oracle.W).norm() < 1e-4 * oracle.W.norm()


def slow_rows_fit(base, shift, examples, training):
    """`slow_fit` with one row at a time: padding counts in this model."""
    optimizer = torch.optim.AdamW(
        [{"params": [shift.R], "weight_decay": 0.0}, {"params": [shift.W, shift.b]}],
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
    )
    rng, losses = random.Random("0"), []
    for _ in range(training.epochs):
        batch = rng.sample(examples, len(examples))
        tokens = sum(len(example.target) for example in batch)
        loss = sum(slow_loss(base, [shift], [e]) * len(e.target) for e in batch) / tokens
        optimizer.zero_grad()
        loss.backward()
        shift.project_gradient()
        torch.nn.utils.clip_grad_norm_(shift.parameters(), training.clip_norm)
        optimizer.step()
        shift.retract()
        losses.append(loss.item())
    return losses[-1]


def test_labels_on_the_plain_path_are_scored_in_full(rwkv):
    shift = moved(ShiftShape(layers=(1, 2), rank=3, hidden_size=32, positions=L7), 1)
    labels = [(first, 2) for first in range(5, 25)]
    prompts = [example.prompt for example in examples_of(3, seed=4)]
    stack = Stack([shift], None, False)
    with torch.no_grad():
        found = score_labels(rwkv, stack, [Question(p) for p in prompts], labels, batch_size=3)
        for prompt, scores in zip(prompts, found, strict=True):
            losses = [slow_loss(rwkv, [shift], [Example(prompt, label)]).item() for label in labels]
            means = [-score / len(label) for score, label in zip(scores.tolist(), labels, strict=True)]
            assert means == pytest.approx(losses, abs=1e-5)


def wrong(*arguments, **more):
    return 0.002


def test_a_difference_is_told_in_one_line_and_remembered(base, caplog, monkeypatch, cache_home):
    monkeypatch.setattr(check, "label_difference", wrong)
    with caplog.at_level(logging.WARNING, logger="fedperfit.edge"):
        paths = checked(base, (3, 4), L7)
    assert (paths.training, paths.labels, paths.text) == (Path.FAST, Path.BARE, Path.FAST)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "scoring labels takes the plain path, row by row (logits differ by 0.002)" in line
    check._checked.clear()
    monkeypatch.setattr(check, "_check", None)  # another process would not check again
    assert checked(base, (3, 4), L7) == paths
    (kept,) = cache_home.rglob("*.json")
    check._checked.clear()
    kept.write_text("{")
    with pytest.raises(TypeError):
        checked(base, (3, 4), L7)


@pytest.fixture
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    check._checked.clear()
    yield tmp_path
    check._checked.clear()


def test_where_hooks_reach_nothing_a_line_says_so(base, cache_home, monkeypatch):
    monkeypatch.setattr(BatchPositions, "change", lambda self, stack, layer, hidden: hidden)
    with pytest.raises(InputError, match="LlamaForCausalLM: a shift changes nothing"):
        checked(base, (3, 4), L7)


@pytest.mark.parametrize(("number", "told"), [(nan, True), (inf, True), (-inf, False)])
def test_logits_that_are_not_finite_are_told_unless_they_forbid_a_token(base, cache_home, number, told):
    def strange(module, given, output):
        return output.index_fill(-1, torch.tensor([3]), number)

    hook = base.model.get_output_embeddings().register_forward_hook(strange)
    try:
        if told:
            with pytest.raises(InputError, match="LlamaForCausalLM: its logits are not finite"):
                checked(base, (3, 4), L7)
        else:
            checked(base, (3, 4), L7)
    finally:
        hook.remove()


def test_a_cache_that_cannot_be_written_costs_only_time(base, cache_home):
    cache_home.joinpath("fedperfit").write_text("a file where a folder should be")
    assert checked(base, (3, 4), L7) == Paths()

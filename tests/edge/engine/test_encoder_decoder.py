"""Encoder-decoder models: answers as of transformers where no shift acts; shifts that are trained and act."""

import random

import pytest
import torch
from tests.edge.engine.slow_training import slow_fit
from tests.edge.moved_shift import moved
from tests.protocol.encoder_decoders import (
    CONFIGS,
    END,
    SIZE,
    VOCABULARY,
    continued,
    encoder_decoder,
    save_encoder_decoder,
    seq2seq,
    written_logits,
)

from fedperfit.edge.chameleon.states import last_states, tokenize_answered
from fedperfit.edge.engine.answering import generate, score_labels
from fedperfit.edge.engine.batching import Question, question_batches
from fedperfit.edge.engine.examples import Example
from fedperfit.edge.engine.generation import Sampling
from fedperfit.edge.engine.items import CachePlan, ItemCache
from fedperfit.edge.engine.layer_gradients import layer_gradient
from fedperfit.edge.engine.paths.check import checked
from fedperfit.edge.engine.paths.labels import label_scores
from fedperfit.edge.engine.paths.path import Path
from fedperfit.edge.engine.paths.plain import plain_scores, target_logits
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.edge.writing.scores import prompt_scores
from fedperfit.edge.writing.streaming import given_tokens, stream
from fedperfit.protocol.model import base_model
from fedperfit.protocol.model.base_model import load
from fedperfit.protocol.shift.directions import Directions, editing
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError, PromptError
from fedperfit.protocol.tasks import Pair

NOTHING = Stack([], None, False)
LABELS = [(7, END), (8, 9, END), (8, 10, 11, END), (12, END)]


@pytest.fixture(params=list(CONFIGS))
def name(request):
    return request.param


@pytest.fixture
def base(name):
    return encoder_decoder(name)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A loaded model with a tokenizer."""
    base_model._read_card.cache_clear()
    folder = tmp_path_factory.mktemp("flan")
    save_encoder_decoder("flan-t5", folder)
    return load(str(folder), device="cpu")


def shape_at(positions):
    return ShiftShape(layers=(0, 1), rank=3, hidden_size=SIZE, positions=Positions.parse(positions))


def examples_of(base, count, seed=0):
    rng = random.Random(seed)

    def tokens(low, high):
        return [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(low, high))]

    return [Example((*tokens(2, 20), *base.mark), (*tokens(1, 5), END)) for _ in range(count)]


def identity(positions):
    """A shift that does nothing yet, where personal shifts start."""
    shift = Shift.identity(shape_at(positions), seed=0)
    return Stack([], Slab.of([shift], torch.device("cpu")), False)


@pytest.mark.parametrize("positions", ["l7", "f3+l4", "f3"])
def test_every_kind_of_work_takes_the_fast_path(base, positions):
    assert checked(base, (0, 1), Positions.parse(positions)).told == ""


@pytest.mark.parametrize("path", [Path.FAST, Path.ALONE, Path.BARE])
@pytest.mark.parametrize("stack", [NOTHING, identity("f3+l4")], ids=["none", "identity"])
def test_greedy_tokens_are_those_of_transformers(base, name, stack, path):
    prompts = [e.prompt for e in examples_of(base, 5)]
    batches = question_batches(base, stack, [Question(p) for p in prompts], 3, None, path)
    for batch in batches:
        width = batch.ids.shape[1]
        with batch.shifted(base, stack, batch.mask):
            rows = base.model.generate(
                **batch.inputs, use_cache=not batch.plain, max_new_tokens=6, do_sample=False, eos_token_id=END
            )
        for index, row in zip(batch.indices, rows[:, width:].tolist(), strict=True):
            expected = continued(seq2seq(name), prompts[index][:-1], max_new_tokens=6, eos_token_id=END)
            assert row[: len(expected)] == expected


@pytest.mark.parametrize("stack", [NOTHING, identity("l7")], ids=["none", "identity"])
def test_scores_of_labels_are_log_likelihoods_by_transformers(base, name, stack):
    examples, model = examples_of(base, 4), seq2seq(name)
    (batch,) = question_batches(base, stack, [Question(e.prompt) for e in examples], 4, None, Path.FAST)
    scores = label_scores(base, stack, batch, LABELS)
    for row, index in zip(scores, batch.indices, strict=True):
        prompt = examples[index].prompt
        expected = torch.stack([_likelihood(model, prompt[:-1], label) for label in LABELS])
        assert torch.allclose(row, expected, rtol=1e-4, atol=1e-4)
        assert torch.allclose(plain_scores(base, stack, prompt, LABELS), expected, rtol=1e-4, atol=1e-4)
        alone = score_labels(base, stack, [Question(prompt)], LABELS, batch_size=1)
        assert torch.allclose(alone[0], expected, rtol=1e-4, atol=1e-4)


def _likelihood(model, prompt, label):
    logs = written_logits(model, prompt, label).log_softmax(-1)
    return logs.gather(1, torch.tensor(label)[:, None]).sum()


@pytest.mark.parametrize("positions", ["l7", "f3+l4"])
def test_training_equals_whole_rows_and_the_loss_falls(base, training, positions):
    examples = examples_of(base, 6)
    ours, oracle = moved(shape_at(positions), 1), moved(shape_at(positions), 1)
    items = ItemCache(base)
    (first,) = fit([FitJob(ours, examples, "0")], training, items)
    expected = slow_fit(base, oracle, examples, training, order="0")
    assert first.loss == pytest.approx(expected, rel=1e-4)
    assert (ours.W - oracle.W).norm() < 1e-4 * oracle.W.norm()
    base.model.model.get_encoder().forward = None  # it has read each prompt, and reads none again
    for _ in range(4):
        (later,) = fit([FitJob(ours, examples, "0")], training, items)
    assert later.loss < 0.95 * first.loss


def test_a_budget_of_nothing_trains_the_same(base, training):
    examples = examples_of(base, 4)
    shifts = [moved(shape_at("f3+l4"), 1) for _ in range(2)]
    losses = [
        fit([FitJob(shift, examples, "0")], training, ItemCache(base, budget))[0].loss
        for shift, budget in zip(shifts, (None, 0), strict=True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert (shifts[0].W - shifts[1].W).norm() < 1e-4 * shifts[1].W.norm()


def test_people_side_by_side_get_what_each_gets_alone(base):
    """Prompts of unequal length under two people's shifts."""
    stack = Stack(
        [], Slab.of([moved(shape_at("f3+l4"), seed) for seed in (1, 2)], torch.device("cpu")), False
    )
    examples = examples_of(base, 6)
    questions = [Question(e.prompt, number % 2) for number, e in enumerate(examples)]
    together = score_labels(base, stack, questions, LABELS, batch_size=6)
    for question, scores in zip(questions, together, strict=True):
        alone = score_labels(
            base, stack.some([question.user]), [Question(question.prompt)], LABELS, batch_size=1
        )
        assert torch.allclose(alone[0], scores, rtol=1e-4, atol=1e-4)
    (batch,) = question_batches(base, stack, questions, 6, None, Path.FAST)
    assert batch.ids.shape[0] == 6
    scores = label_scores(base, stack, batch, LABELS)
    for row, index in zip(scores, batch.indices, strict=True):
        alone = plain_scores(base, stack.some([questions[index].user]), questions[index].prompt, LABELS)
        assert torch.allclose(row, alone, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("positions", ["l7", "f2"])
def test_a_shift_acts_at_the_prompts_tokens_and_only_there(base, positions):
    """The last seven are six that the encoder reads and the decoder's start; the target's are none."""
    prompt, shift = (3, 4, 5, 6, 7, 8, 9, 10, *base.mark), moved(shape_at(positions), 3)
    stack, seen = Stack([shift], None, False), {}
    hook = base.model.joint_layers[1].register_forward_hook(lambda m, a, out: seen.update(after=out))
    target_logits(base, stack, Example(prompt, (11, 12, END)))
    shifted = seen["after"]
    hook.remove()
    hook = base.model.joint_layers[1].register_forward_hook(lambda m, a, out: seen.update(after=out))
    target_logits(base, NOTHING, Example(prompt, (11, 12, END)))
    hook.remove()
    read = (shifted - seen["after"])[0, :8].abs().amax(-1) > 1e-4  # shifted by the layer below
    assert read.tolist() == ([False, False, *[True] * 6] if positions == "l7" else [True, True, *[False] * 6])


def test_prepared_items_are_states_of_whole_rows(base):
    examples = examples_of(base, 3)
    prepared = ItemCache(base).prepare([examples], 0, Positions.parse("l7"))
    assert prepared.kind.plan is CachePlan.STATES
    for example in examples:
        tokens = len(example.prompt) + len(example.target) - 1
        assert prepared.items[example].hidden.shape == (tokens, SIZE)


def test_the_last_states_are_the_decoders_by_transformers(base, name):
    example, model = examples_of(base, 1)[0], seq2seq(name)
    rows = [(*example.prompt, *example.target[:-1]), example.prompt]
    states = last_states(base, rows)
    start = model.config.decoder_start_token_id
    own = torch.tensor([[start, *example.target[:-1]]])
    run = model(
        input_ids=torch.tensor([example.prompt[:-1]]), decoder_input_ids=own, output_hidden_states=True
    )
    below = run.decoder_hidden_states
    for layer in range(2):  # the last one's is told after the final norm
        assert torch.allclose(states[layer, 0], below[layer + 1][0, -1], rtol=1e-4, atol=1e-4)
        assert torch.allclose(states[layer, 1], below[layer + 1][0, 0], rtol=1e-4, atol=1e-4)


def test_directions_change_what_the_decoders_mlps_say_and_the_encoder_stays(base):
    example = examples_of(base, 1)[0]
    plain = target_logits(base, NOTHING, example)
    p, n = torch.randn(2, 1, SIZE, generator=torch.Generator().manual_seed(0))
    encoded = base.model.model.get_encoder()(input_ids=torch.tensor([example.prompt[:-1]])).last_hidden_state
    with editing(base.model, Directions.of([1], p, n)):
        edited = target_logits(base, NOTHING, example)
        again = base.model.model.get_encoder()(input_ids=torch.tensor([example.prompt[:-1]]))
    assert (edited - plain).abs().max() > 0.1
    assert torch.equal(again.last_hidden_state, encoded)


def test_layers_without_an_mlp_of_a_known_name_are_refused(base):
    base.model.joint_layers[1].layer = torch.nn.Identity()
    directions = Directions.of([1], torch.ones(1, SIZE), torch.ones(1, SIZE))
    with pytest.raises(InputError, match=r"^Identity: no MLP among"), editing(base.model, directions):
        pass


def test_gradients_by_layer_are_those_of_a_constant_added_there(loaded):
    found = layer_gradient(loaded, [Pair("a b c", "d"), Pair("e f", "g h")], Positions.parse("l2"))
    assert found.gradient.shape == (3, SIZE)
    assert found.gradient.abs().sum(1).min() > 0


def test_an_answer_stands_behind_the_mark_where_directions_are_sought(loaded):
    row = tokenize_answered(loaded, "a b", "c")
    words = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a b", "c")]
    assert row == (*words[0], *loaded.mark, *words[1])


def test_text_is_streamed_until_an_end_or_the_limit(loaded):
    prompt = given_tokens(loaded, [3, 4, 5])
    assert prompt == (3, 4, 5, *loaded.mark)
    parts = []
    most = 6
    done = stream(loaded, NOTHING, prompt, Sampling(max_new_tokens=most), parts.append, lambda: True)
    expected = continued(seq2seq("flan-t5"), [3, 4, 5], max_new_tokens=most, eos_token_id=END)
    assert done.completion_tokens == len(expected)
    assert done.reason == ("stop" if expected[-1] == END else "length")
    assert "".join(parts).split() == loaded.tokenizer.decode(expected, skip_special_tokens=True).split()
    answers = generate(loaded, NOTHING, [Question(prompt)], most=most, batch_size=1)
    assert answers == ["".join(parts).strip()]


def test_a_seed_draws_the_same_text_again_and_others_differ(loaded):
    def drawn(seed):
        parts = []
        sampling = Sampling(temperature=5.0, seed=seed, max_new_tokens=12)
        stream(loaded, NOTHING, given_tokens(loaded, [3, 4]), sampling, parts.append, lambda: True)
        return "".join(parts)

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(4)}) > 1


def test_likelihoods_of_what_the_encoder_reads_are_refused(loaded):
    with pytest.raises(PromptError, match="predicts nothing of what it reads"):
        prompt_scores(loaded, NOTHING, given_tokens(loaded, [3, 4]), 1)

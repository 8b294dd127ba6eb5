from dataclasses import replace

import pytest
import torch
from tests.edge.moved_shift import moved

from fedperfit.edge.engine.answering import choose, generate, score_labels
from fedperfit.edge.engine.batching import Question
from fedperfit.edge.engine.examples import encode
from fedperfit.edge.engine.items import ItemCache
from fedperfit.edge.engine.slab import Slab, Stack
from fedperfit.protocol.shift.injection import injected
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.tasks import TASKS, Pair, task_by_name

PROMPTS = [
    "Generate a headline for the following article: In Newfield, the mayor opened the bridge in May.\n",
    "Generate a headline for the following article: The bridge was painted.\n",
    "tweet:\n",
]


@pytest.fixture(scope="module")
def prompts(base):
    return [example.prompt for example in encode(base, [Pair(text, "") for text in PROMPTS])]


def questions_of(prompts):
    return [Question(prompt) for prompt in prompts]


def slow_logits(base, shifts, prompt, continuation):
    """Log-probabilities after each position, the whole row recomputed, no cache, no padding."""
    ids = torch.tensor([[*prompt, *continuation]])
    inside = torch.arange(ids.shape[1])[None] < len(prompt)
    mask = shifts[0].shape.positions.mask(inside) if shifts else inside
    with torch.no_grad(), injected(base.model, shifts, mask):
        return base.model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_greedy_text_equals_recomputing_every_token(base, shape, prompts, count):
    shifts = [moved(shape, seed) for seed in range(count)]
    answers = generate(base, Stack(shifts, None, False), questions_of(prompts), most=64, batch_size=2)
    for prompt, answer in zip(prompts, answers, strict=True):
        produced: list[int] = []
        while len(produced) < 64:
            token = int(slow_logits(base, shifts, prompt, produced)[-1].argmax())
            if token == base.tokenizer.eos_token_id:
                break
            produced.append(token)
        assert answer == base.tokenizer.decode(produced, skip_special_tokens=True).strip()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_scores_of_labels_equal_scoring_each_in_full(base, shape, prompts, count):
    shifts = [moved(shape, seed) for seed in range(count)]
    tokens = base.tokenizer(list(TASKS["LaMP_2M"].labels), add_special_tokens=False)["input_ids"]
    labels = [(*label, base.tokenizer.eos_token_id) for label in tokens]
    found = score_labels(base, Stack(shifts, None, False), questions_of(prompts), labels, batch_size=2)
    for prompt, scores in zip(prompts, found, strict=True):
        slow = []
        for label in labels:
            logs = slow_logits(base, shifts, prompt, label)
            places = range(len(prompt) - 1, len(prompt) - 1 + len(label))
            slow.append(sum(logs[place, token].item() for place, token in zip(places, label, strict=True)))
        assert scores.tolist() == pytest.approx(slow, abs=1e-4)


PROBABILITIES = [
    [0.4, 0.3, 0.3, 0.0, 0.0],
    [0.5, 0.0, 0.0, 0.0, 0.5],
    [0.2, 0.2, 0.2, 0.2, 0.2],
    [0.0, 0.1, 0.35, 0.15, 0.4],
]
"""Of the labels 1 to 5, for each of four questions."""


@pytest.mark.parametrize("labels", [["1", "2", "3", "4", "5"], ["9", "-20", "10", "2.5", "-1"]])
def test_a_median_has_the_least_expected_distance(labels):
    """Whatever the order of the labels, and with any constant added to the scores of a question."""
    text = (
        f'name = "rated"\nkind = "number"\nfields = ["text"]\ntarget = "score"\nlabels = {labels}\n'
        'estimate = "median"\n'
    )
    task = task_by_name(text)
    probabilities = torch.tensor(PROBABILITIES)
    chosen = choose(task, probabilities.log() + torch.arange(4)[:, None])
    for answer, row in zip(chosen, PROBABILITIES, strict=True):

        def expected(answer, row=row):
            return sum(p * abs(float(answer) - float(label)) for p, label in zip(row, labels, strict=True))

        assert expected(answer) == pytest.approx(min(map(expected, labels)))
    assert choose(TASKS["LaMP_3"], probabilities.log()) == ["1", "1", "1", "5"]


def test_answers_keep_the_order_of_prompts(base, prompts):
    stack, questions = Stack([], None, False), questions_of(prompts)
    answers = generate(base, stack, questions, most=64, batch_size=3)
    assert generate(base, stack, questions[::-1], most=64, batch_size=1) == answers[::-1]


@pytest.mark.parametrize("positions", ["l7", "f7+l7"])
@pytest.mark.parametrize("additive", [False, True])
def test_users_side_by_side_answer_as_each_would_alone(base, shape, prompts, positions, additive):
    shape = replace(shape, positions=Positions.parse(positions))
    shared, own = [moved(shape, 9)], [moved(shape, seed) for seed in range(3)]
    questions = [Question(prompt, user) for prompt in prompts for user in (2, 0, 1)]
    labels = [(5, 6, 2), (7, 2), (8, 9, 2)]
    together = Stack(shared, Slab.of(own, base.device), additive)
    items = ItemCache(base)
    texts = generate(base, together, questions, most=64, batch_size=4, items=items)
    scores = score_labels(base, together, questions, labels, batch_size=4, items=items)
    assert bool(items.bytes) is (positions == "l7")
    assert generate(base, together, questions, most=64, batch_size=4) == texts
    assert len(set(texts)) > len(prompts)
    for index, question in enumerate(questions):
        alone = Stack([*shared, own[question.user]], None, additive)
        one = [Question(question.prompt)]
        assert generate(base, alone, one, most=64, batch_size=1) == [texts[index]]
        assert score_labels(base, alone, one, labels, batch_size=1)[0].allclose(scores[index], atol=1e-4)


@pytest.mark.parametrize("budget", [1 << 30, 1])
def test_questions_asked_again_are_answered_from_what_was_kept(base, shape, prompts, budget):
    """With too small a budget too; every stage against the answers without a cache."""
    items = ItemCache(base, budget)
    questions = questions_of(prompts)
    labels = [(5, 6, 2), (7, 2), (8, 9, 2)]
    for seed in range(3):
        stack = Stack([moved(shape, seed)], None, False)
        kept = items.bytes
        assert generate(base, stack, questions, most=64, batch_size=2, items=items) == generate(
            base, stack, questions, most=64, batch_size=2
        )
        anew = score_labels(base, stack, questions, labels, batch_size=3)
        assert score_labels(base, stack, questions, labels, batch_size=3, items=items).allclose(
            anew, atol=1e-4
        )
        assert seed == 0 or items.bytes == kept
    assert (items.bytes > 0) is (budget > 1)

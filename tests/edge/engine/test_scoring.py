import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, mean_absolute_error, mean_squared_error

from fedperfit.edge.engine.scoring import score
from fedperfit.protocol.tasks import TASKS, task_by_name

TAGS, RATINGS = TASKS["LaMP_2M"], TASKS["LaMP_3"]
ANSWERS = st.sampled_from([*TAGS.labels, " comedy ", "Comedy", "nonsense", ""])


@given(st.lists(st.tuples(ANSWERS, st.sampled_from(TAGS.labels)), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_category_sums(pairs):
    answers, golds = zip(*pairs, strict=True)
    sums = score(TAGS, answers, golds)
    stripped = [answer.strip() for answer in answers]
    assert sums["correct"] == pytest.approx(accuracy_score(golds, stripped) * len(golds))
    for index, label in enumerate(TAGS.labels):
        both = sum(a == g == label for a, g in zip(stripped, golds, strict=True))
        assert sums["true-positives"][index] == both
        assert sums["predicted"][index] == stripped.count(label)
        assert sums["gold"][index] == golds.count(label)


@given(
    st.lists(
        st.tuples(st.sampled_from([*RATINGS.labels, "6", "four", ""]), st.sampled_from(RATINGS.labels)),
        min_size=1,
        max_size=60,
    )
)
@settings(max_examples=50, deadline=None)
def test_rating_sums(pairs):
    """An unparsable answer counts as the farther end of the scale (LaMP)."""
    answers, golds = zip(*pairs, strict=True)
    numbers = [
        int(a) if a in RATINGS.labels else (1 if abs(int(g) - 1) > abs(int(g) - 5) else 5) for a, g in pairs
    ]
    true = [int(gold) for gold in golds]
    sums = score(RATINGS, answers, golds)
    assert sums["absolute-error"] == pytest.approx(mean_absolute_error(true, numbers) * len(true))
    assert sums["squared-error"] == pytest.approx(mean_squared_error(true, numbers) * len(true))


def test_text_sums():
    rng = random.Random(1)
    words = "the mayor opened a bridge in may".split()
    pairs = [tuple(" ".join(rng.choices(words, k=rng.randint(0, 7))) for _ in range(2)) for _ in range(40)]
    answers, golds = zip(*pairs, strict=True)
    scorer = RougeScorer(["rouge1", "rougeL"])
    sums = score(TASKS["LaMP_4"], answers, golds)
    for key, name in (("rouge-1", "rouge1"), ("rouge-L", "rougeL")):
        expected = sum(scorer.score(gold, answer)[name].fmeasure for answer, gold in pairs)
        assert sums[key] == pytest.approx(expected)
    assert sums["correct"] == sum(answer == gold for answer, gold in pairs)


def test_a_text_is_itself_whichever_way_its_accents_are_coded():
    task = task_by_name(
        'name = "T"\nkind = "text"\nfields = ["x"]\ntarget = "y"\nmetrics = ["rouge-1", "chrf", "bleu"]\n'
    )
    sums = score(task, ["cafe\u0301 du soir ici"], ["caf\u00e9 du soir ici"])
    assert sums == {"correct": 1, "rouge-1": 1, "chrf": 1, "bleu": pytest.approx(1)}

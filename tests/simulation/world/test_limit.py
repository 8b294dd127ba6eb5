"""The best answers after some items, against enumeration and against drawing users at random."""

import json
import random
from itertools import permutations, product

import numpy as np
import pytest
from tests.simulation.world.test_world import main_score

from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.world import headlines, rating, tagging
from fedperfit.simulation.world.build import BOUNDS, LIMIT, NEW_USERS, WORLD_TASKS, WorldSize, write_world
from fedperfit.simulation.world.orders import favourites, order_probabilities, orders


def test_probabilities_of_orders_are_those_of_drawn_likings():
    means = (0.3, -0.5, 1.1, 0.0)
    rng = np.random.default_rng(0)
    drawn = np.argsort(rng.normal(means, 1.5, (50_000, 4)), axis=1)
    shares = {order: float((drawn == order).all(1).mean()) for order in permutations(range(4))}
    exact = dict(zip(map(tuple, orders(4).tolist()), order_probabilities(means, 1.5), strict=True))
    assert sum(exact.values()) == pytest.approx(1)
    assert all(exact[order] == pytest.approx(share, abs=0.004) for order, share in shares.items())


def test_the_favourite_among_some_comes_last_in_the_order():
    order = next(n for n, order in enumerate(orders(4).tolist()) if order == [2, 0, 3, 1])
    assert favourites(4, 2)[0, 3][order] == 3
    assert favourites(4, 3)[0, 2, 3][order] == 3
    assert favourites(4, 3)[0, 1, 2][order] == 1


def test_tags_are_those_of_an_enumeration_of_orders():
    """All orders of four tags by hand, with the likelihood of every answer written out."""
    task, tags = tagging.Tagging(), TASKS["LaMP_2M"].labels
    seen = [((1, 4, 6), tags[4]), ((1, 4, 6), tags[4]), ((4, 6, 9), tags[9]), ((1, 6, 9), tags[6])]
    questions = [(1, 4, 9), (1, 6, 9), (4, 6, 9), (1, 4, 6)]
    means = [task._leanings[True][tag] for tag in (1, 4, 6, 9)]
    rng = np.random.default_rng(1)
    drawn = np.argsort(rng.normal(means, tagging.TASTE_SPREAD, (20_000, 4)), axis=1)
    votes = [dict.fromkeys(cues, 0.0) for cues in questions]
    for order in permutations((1, 4, 6, 9)):
        places = [(1, 4, 6, 9).index(tag) for tag in order]
        weight = float((drawn == places).all(1).mean())
        for cues, answer in seen:
            best = max(cues, key=order.index)
            weight *= (1 - tagging.NOISE) * (tags[best] == answer) + tagging.NOISE / 3
        for vote in votes:
            vote[max(vote, key=order.index)] += weight
    expected = [tags[max(vote, key=lambda tag: vote[tag])] for vote in votes]
    assert task.best_after(seen, questions, community=True) == expected


def test_scores_are_those_of_an_enumeration_of_tastes():
    task, rng = rating.Rating(), random.Random(0)
    seen, questions = [(2, "3"), (-4, "1"), (5, "4")], [-6, -2, 0, 3, 6]
    weights = [dict.fromkeys("12345", 0.0) for _ in questions]
    for _ in range(20_000):
        taste, weight = task.taste(rng, community=True), 1.0
        for total, answer in seen:
            weight *= _chances(taste.score(total))[answer]
        for about, total in zip(weights, questions, strict=True):
            for answer, chance in _chances(taste.score(total)).items():
                about[answer] += weight * chance
    expected = []
    for about in weights:
        losses = {a: sum(w * abs(int(a) - int(b)) for b, w in about.items()) for a in about}
        expected.append(min(losses, key=lambda answer: losses[answer]))
    assert task.best_after(seen, questions, community=True) == expected


def _chances(score: int) -> dict[str, float]:
    chances = dict.fromkeys("12345", 0.0)
    chances[str(score)] += 1 - rating.NOISE
    for step in (-1, 1):
        chances[str(max(1, min(5, score + step)))] += rating.NOISE / 2
    return chances


def test_headlines_learn_form_casing_and_mark():
    facts = headlines.Facts("mayor", next(iter(headlines.VERBS)), "bridge", "oslo", 3)
    task = headlines.Headlines()
    style = ("colon", "title", "!")
    seen = [(facts, headlines.headline(facts, *style))] * 3
    assert task.best_after(seen, [facts], community=True) == [headlines.headline(facts, *style)]
    total = sum(headlines._tastes(True).values())
    assert total == pytest.approx(1)
    assert len(headlines._tastes(True)) == len(list(product(range(20), range(3), range(3))))


@pytest.mark.parametrize("task", list(WORLD_TASKS))
def test_more_items_are_better_and_none_is_what_the_prior_says(task):
    world_task, rng = WORLD_TASKS[task], random.Random(5)
    golds: list[str] = []
    given: dict[str, list[str]] = {name: [] for name in ("unknown", "0", "4", "32", "bayes")}
    for _ in range(12):
        taste = world_task.taste(rng, community=True)
        cues = [world_task.item(rng, taste).cues for _ in range(52)]
        answers = [world_task.answer(rng, taste, cue) for cue in cues]
        seen, asked = list(zip(cues, answers, strict=True))[:32], cues[32:]
        golds += answers[32:]
        given["unknown"] += [world_task.best_unknown(cue, community=True) for cue in asked]
        given["bayes"] += [world_task.best(taste, cue) for cue in asked]
        for length in (0, 4, 32):
            given[str(length)] += world_task.best_after(seen[:length], asked, community=True)
    scores = {name: main_score(task, answers, golds) for name, answers in given.items()}
    assert scores["0"] == pytest.approx(scores["unknown"], abs=0.03)
    assert scores["0"] + 0.05 < scores["4"] <= scores["32"] <= scores["bayes"] + 0.01


def test_the_world_writes_them_for_new_users_only(tmp_path):
    size = WorldSize(others=1, targets=1, new=2, history=4, questions=3)
    root = write_world(tmp_path, TASKS["LaMP_3"], size, seed=1, lengths=(0, 2, 4))
    limit = json.loads((root / NEW_USERS / LIMIT).read_text())
    bounds = json.loads((root / NEW_USERS / BOUNDS).read_text())
    assert limit.keys() == bounds.keys()
    assert all(set(about) == {"0", "2", "4"} for about in limit.values())
    assert all(len(answers) == 3 for about in limit.values() for answers in about.values())
    assert not (root / LIMIT).exists()
    plain = write_world(tmp_path / "plain", TASKS["LaMP_3"], size, seed=1)
    assert not (plain / NEW_USERS / LIMIT).exists()
    assert (plain / NEW_USERS / BOUNDS).read_bytes() == (root / NEW_USERS / BOUNDS).read_bytes()

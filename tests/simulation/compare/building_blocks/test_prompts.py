"""History in prompts: what retrieval may see, what fits, what it looks like."""

import random

import bm25s
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.items import ItemCache
from fedperfit.protocol.model.base_model import load
from fedperfit.protocol.tasks import TASKS, PromptForm
from fedperfit.simulation.compare.building_blocks.prompts import (
    PAIRS,
    SENTENCES,
    TEMPLATES,
    Index,
    retrieving_pairs,
    retrieving_prompt,
    with_items,
)
from fedperfit.simulation.compare.context import MethodContext

WORDS = "storm harbour queen robot laughter museum forest banker violin desert".split()
BASE = load("embedded", device="cpu", dtype="float32")


def context(task: str, folder) -> MethodContext:
    return MethodContext(BASE, TASKS[task], PromptForm.LAMP, 0, ItemCache(BASE), folder)


def item(task: str, rng: random.Random, words: int = 6) -> dict[str, str]:
    lamp = TASKS[task]
    fields = {name: " ".join(rng.choices(WORDS, k=words)) for name in ("text", "description", "abstract")}
    if lamp.free_history:
        return fields
    answer = rng.choice(lamp.labels) if lamp.labels else " ".join(rng.choices(WORDS, k=3))
    return fields | {lamp.answer: answer}


@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_retrieval_is_bm25s_own_over_earlier_items(seed, earlier, k):
    rng = random.Random(seed)
    items = [item("LaMP_2M", rng) for _ in range(12)]
    prompt = " ".join(rng.choices(WORDS, k=5))
    index = Index(TASKS["LaMP_2M"], items)
    found = index.best(prompt, earlier, k)
    assert len(found) == min(k, earlier)
    assert all(n < earlier for n in found)
    if earlier:
        library = bm25s.BM25()
        library.index(
            [f"{i['description']} {i['tag']}".split() for i in items[:earlier]], show_progress=False
        )
        scores = library.get_scores(prompt.split())
        assert index.scores(prompt.split(), earlier).tolist() == scores.tolist()
        worst = min(scores[n] for n in found)
        assert all(scores[n] <= worst for n in range(earlier) if n not in found)
        assert [scores[n] for n in found] == sorted((scores[n] for n in found), reverse=True)


def test_later_items_never_reach_a_training_prompt(tmp_path):
    rng = random.Random(1)
    items = [item("LaMP_2M", rng) | {"description": f"mark{n}end storm harbour"} for n in range(8)]
    history = History("ada", TASKS["LaMP_2M"], items)
    pairs = retrieving_pairs(context("LaMP_2M", tmp_path), history, 4, PAIRS)
    for n, pair in enumerate(pairs):
        assert f"mark{n}end" in pair.prompt
        assert [m for m in range(8) if m > n and f"mark{m}end" in pair.prompt] == []
        assert sum(f"mark{m}end" in pair.prompt for m in range(8)) > min(n, 1)


@pytest.mark.parametrize("task", [name for name in TASKS if name.startswith("LaMP_")])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_ends_with_its_question_and_fits(tmp_path, task, template):
    """Items that do not fit are left out; the question never is."""
    rng = random.Random(2)
    place = context(task, tmp_path)
    question = place.prompt(TASKS[task].instruction + "a quiet story by the sea")
    items = [item(task, rng, words=30) for _ in range(40)]
    shown = with_items(place, items, question, template)
    assert shown.endswith(question)
    tokens = len(BASE.tokenizer(shown, add_special_tokens=False)["input_ids"])
    assert place.room / 2 < tokens <= place.room
    assert with_items(place, [], question, template) == question
    assert with_items(place, [item(task, rng, words=3000)], question, template) == question


def test_how_items_look(tmp_path):
    place = context("LaMP_2M", tmp_path)
    items = [{"description": "a storm", "tag": "action"}, {"description": "a queen", "tag": "classic"}]
    assert with_items(place, items, "Q", SENTENCES) == (
        'the tag for the movie: "a storm" is "action", and the tag for the movie: "a queen" is "classic". Q'
    )
    pairs = [TASKS["LaMP_2M"].item_pair(one, PromptForm.LAMP) for one in items]
    assert with_items(place, items, "Q", PAIRS) == "".join(f"{p.prompt}{p.target}\n" for p in pairs) + "Q"


def test_the_nearest_item_is_shown_first(tmp_path):
    place = context("LaMP_2M", tmp_path)
    items = [
        {"description": "banker banker", "tag": "action"},
        {"description": "violin in the desert", "tag": "classic"},
        {"description": "robot museum", "tag": "comedy"},
    ]
    history = History("ada", TASKS["LaMP_2M"], items)
    question = TASKS["LaMP_2M"].instruction + "a violin lost in the desert"
    shown = retrieving_prompt(place, history, question, 2, SENTENCES)
    assert shown.startswith('the tag for the movie: "violin in the desert" is "classic"')

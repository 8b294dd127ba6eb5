"""Metrics by name: in every script, with sacrebleu, and of one's own."""

import functools
import gc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_bleu, sentence_chrf

from fedperfit.cloud.clients.metric_rules import evaluation_metrics
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.edge.engine.scoring import score
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import Task, task_by_name
from fedperfit.protocol.tasks.text_metrics import TEXT_METRICS
from fedperfit.simulation.compare.search import goodness
from fedperfit.simulation.report.bootstrap import Bootstrap, Sample

LATIN = st.text("abc ABC 123 éß.,!-\n\t🙂", max_size=30)


def task(metrics: str, kind: str = "text", more: str = "") -> Task:
    return task_by_name(
        f'name = "Own"\nkind = "{kind}"\nfields = ["x"]\ntarget = "y"\nmetrics = [{metrics}]\n{more}\n'
    )


@given(st.text(min_size=1).filter(str.strip))
def test_an_answer_like_the_gold_is_right_in_any_script(text):
    assert {name: score(text, text) for name, score in TEXT_METRICS.items() if name != "bleu"} == {
        name: pytest.approx(1) for name in TEXT_METRICS if name != "bleu"
    }


@pytest.mark.parametrize(
    "text",
    ["猫坐在垫子上", "สวัสดีครับ", "हिन्दी भाषा", "Привет, мир", "مرحبا", "カタカナ", "à", "👍"],
)
def test_every_metric_knows_an_equal_text_of_many_scripts(text):
    assert {name: score(text, text) for name, score in TEXT_METRICS.items()} == {
        name: pytest.approx(1) for name in TEXT_METRICS
    }


def test_unspaced_scripts_are_compared_by_character():
    assert TEXT_METRICS["rouge-1"]("猫坐着", "猫坐在垫子上") == pytest.approx(2 * 2 / (3 + 6))
    assert 0 < TEXT_METRICS["bleu"]("猫坐在垫子", "猫坐在垫子上") < 1
    assert TEXT_METRICS["rouge-1"]("нет", "да") == 0
    for answer, gold in (("x ١", "x ٢"), ("5 ＡＢ", "5 ＸＹ")):  # noqa: RUF001 - as some write
        assert TEXT_METRICS["rouge-1"](answer, gold) == 0.5


@given(answer=LATIN, gold=LATIN.filter(lambda text: any(c.isascii() and c.isalnum() for c in text)))
@settings(max_examples=300)
def test_latin_texts_have_the_scores_of_lamp(answer, gold):
    expected = RougeScorer(["rouge1", "rougeL"]).score(gold, answer)
    assert TEXT_METRICS["rouge-1"](answer, gold) == expected["rouge1"].fmeasure
    assert TEXT_METRICS["rouge-L"](answer, gold) == expected["rougeL"].fmeasure


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_no_cache_keeps_a_text_that_was_scored(name):
    def kept() -> list[int]:
        caches = [one for one in gc.get_objects() if isinstance(one, functools._lru_cache_wrapper)]
        return sorted(cache.cache_info().currsize for cache in caches)

    TEXT_METRICS[name]("a first one", "which imports what is needed")
    before = kept()
    TEXT_METRICS[name]("Ada's secret, Ω.", "Ada's other secret!")
    assert kept() == before


def test_chrf_and_bleu_are_those_of_sacrebleu():
    answer, gold = "the mayor opens a bridge in May", "The mayor opened the old bridge in May."
    assert TEXT_METRICS["chrf"](answer, gold) == pytest.approx(sentence_chrf(answer, [gold]).score / 100)
    assert TEXT_METRICS["bleu"](answer, gold) == pytest.approx(sentence_bleu(answer, [gold]).score / 100)


def test_named_metrics_go_from_sums_to_figures_and_guide_the_search():
    own, answers, golds = task('"chrf", "exact"'), ["a bridge", "no"], ["a bridge", "yes"]
    sums = score(own, answers, golds)
    assert set(sums) == set(evaluation_metrics(own)) == {"correct", "chrf"}
    sample = Sample.of(own, {"ada": {"items": 2, "metrics": sums}})
    figures = Bootstrap(0, 10).estimates(sample)
    assert list(figures) == ["chrf", "exact"]
    assert figures["exact"]["value"] == 0.5
    assert goodness(own, answers, golds) == (sums["chrf"], 2)


def test_a_number_may_have_any_scale():
    own = task("", "number", 'labels = ["-1.5", "0", "10"]')
    assert score(own, ["0", "x"], ["-1.5", "0"])["absolute-error"] == 1.5 + 10
    assert evaluation_metrics(own)["absolute-error"].per_item == 11.5


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ('"rouge1"', "'rouge1' scores no answers of kind text.*; the nearest is rouge-1"),
        ('"mae"', "'mae' scores no answers of kind text"),
        ('"chrf", "chrf"', "'chrf' stands twice"),
        ('"a b:c"', "'a b:c' scores no answers"),
    ],
)
def test_a_metric_that_does_not_suit_is_one_line(metrics, told):
    with pytest.raises(InputError, match=told):
        task(metrics)


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_of_test_metrics.py").write_text(
        "def short(answer, gold):\n    return len(answer) <= len(gold)\n\n\n"
        "def wrong(answer, gold):\n    return 2\n\n\n"
        "def broken(answer, gold):\n    return 1 / 0\n\n\n"
        "def torn(answer, gold):\n    raise ValueError('\\nexpected\\na number')\n\n\n"
        "def ends(answer, gold):\n    raise SystemExit\n"
    )
    (tmp_path / "script_of_test_metrics.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_function_of_ones_own_scores_in_simulations(functions: None):
    own = task('"mine_of_test_metrics:short"', "labels", 'labels = ["a", "bb"]')
    sums = score(own, ["a", "bb"], ["bb", "a"])
    assert sums["mine_of_test_metrics:short"] == 1
    sample = Sample.of(own, {"ada": {"items": 2, "metrics": sums}})
    assert Bootstrap(0, 10).estimates(sample)["mine_of_test_metrics:short"]["value"] == 0.5


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mine_of_test_metrics:wrong", "2 is not a score from 0 to 1"),
        ("mine_of_test_metrics:broken", "ZeroDivisionError"),
        ("mine_of_test_metrics:none", "AttributeError"),
        ("mine_of_test_metrics:torn", "ValueError: expected a number"),
        ("mine_of_test_metrics:ends", "SystemExit"),
        ("script_of_test_metrics:f", "SystemExit: 0"),
        ("no_such_module:f", "ModuleNotFoundError"),
    ],
)
def test_a_function_that_fails_is_one_line(functions: None, name: str, told: str):
    with pytest.raises(InputError, match=f"metric {name}: .*{told}") as caught:
        score(task(f'"{name}"'), ["a"], ["b"])
    assert "\n" not in str(caught.value)


def test_no_deployment_runs_a_function():
    values = CloudSettings.own(read_preset("quickstart")) | {"task": task('"os:getcwd"').reference}
    with pytest.raises(InputError, match="metric os:getcwd is a function, which simulations alone run"):
        CloudSettings.from_flat(values)

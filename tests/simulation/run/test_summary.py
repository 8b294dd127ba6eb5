import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, root_mean_squared_error
from tests.simulation.run_folders import write_run

from fedperfit.edge.engine.scoring import score
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.report.bootstrap import Bootstrap, Sample
from fedperfit.simulation.run.report import write_report
from fedperfit.simulation.run.summary import final_figures, summarise, write_metrics

TAGS, RATINGS, TITLES = TASKS["LaMP_2M"], TASKS["LaMP_3"], TASKS["LaMP_4"]


def sample_of(task, users) -> Sample:
    """users: per user the (answer, gold) pairs."""
    phase = {
        f"u{number}": {"items": len(pairs), "metrics": score(task, *zip(*pairs, strict=True))}
        for number, pairs in enumerate(users)
    }
    return Sample.of(task, phase)


def pooled(sample: Sample) -> dict[str, float]:
    return {name: float(value[0]) for name, value in sample.metrics(np.ones((1, len(sample.users)))).items()}


def users_of(answers, golds):
    pair = st.tuples(st.sampled_from(answers), st.sampled_from(golds))
    return st.lists(st.lists(pair, min_size=1, max_size=12), min_size=1, max_size=6)


@given(users_of([*TAGS.labels, "nonsense", ""], list(TAGS.labels)))
@settings(max_examples=60, deadline=None)
def test_accuracy_and_f1_are_those_of_scikit_learn(users):
    answers, golds = zip(*(pair for pairs in users for pair in pairs), strict=True)
    expected_f1 = f1_score(golds, answers, labels=list(TAGS.labels), average="macro", zero_division=0)
    metrics = pooled(sample_of(TAGS, users))
    assert metrics["accuracy"] == pytest.approx(accuracy_score(golds, answers))
    assert metrics["f1"] == pytest.approx(expected_f1)


@given(users_of(["1", "2", "3", "4", "5"], list(RATINGS.labels)))
@settings(max_examples=60, deadline=None)
def test_mae_and_rmse_are_those_of_scikit_learn(users):
    answers, golds = zip(*((int(a), int(g)) for pairs in users for a, g in pairs), strict=True)
    metrics = pooled(sample_of(RATINGS, users))
    assert metrics["mae"] == pytest.approx(mean_absolute_error(golds, answers))
    assert metrics["rmse"] == pytest.approx(root_mean_squared_error(golds, answers))


def test_rouge_is_the_plain_mean_of_rouge_score():
    rng = random.Random(2)
    words = "the mayor opened a bridge in may".split()
    users = [
        [tuple(" ".join(rng.choices(words, k=rng.randint(1, 6))) for _ in range(2)) for _ in range(5)]
        for _ in range(4)
    ]
    scorer = RougeScorer(["rouge1", "rougeL"])
    scores = [scorer.score(gold, answer) for pairs in users for answer, gold in pairs]
    metrics = pooled(sample_of(TITLES, users))
    assert metrics["rouge-1"] == pytest.approx(np.mean([s["rouge1"].fmeasure for s in scores]))
    assert metrics["rouge-L"] == pytest.approx(np.mean([s["rougeL"].fmeasure for s in scores]))


def rating_users(seed: int, users: int = 30, noise: float = 1.0):
    rng = random.Random(seed)
    pairs = []
    for _ in range(users):
        golds = [rng.randint(1, 5) for _ in range(10)]
        moved = [
            max(1, min(5, gold + (rng.choice((-1, 1)) if rng.random() < noise else 0))) for gold in golds
        ]
        pairs.append([(str(a), str(g)) for a, g in zip(moved, golds, strict=True)])
    return pairs


def test_an_interval_resamples_users():
    """Against a slow bootstrap that draws users and pools their questions by hand."""
    users = rating_users(0)
    about = Bootstrap(seed=3, samples=4000).estimates(sample_of(RATINGS, users))["mae"]
    rng = np.random.default_rng(9)
    errors = [np.mean([abs(int(a) - int(g)) for a, g in pairs]) for pairs in users]
    slow = [np.mean(rng.choice(errors, len(errors))) for _ in range(4000)]
    low, high = np.percentile(slow, [2.5, 97.5])
    assert about["low"] == pytest.approx(low, abs=0.01)
    assert about["high"] == pytest.approx(high, abs=0.01)
    assert about["low"] < about["value"] < about["high"]


def test_identical_users_have_no_spread_and_equal_results_no_difference():
    one = rating_users(1, users=1)
    bootstrap = Bootstrap(seed=0, samples=200)
    about = bootstrap.estimates(sample_of(RATINGS, one * 8))["mae"]
    assert about["low"] == pytest.approx(about["high"])
    many = sample_of(RATINGS, rating_users(2))
    for difference in bootstrap.difference(many, many).values():
        assert (difference["value"], difference["low"], difference["high"]) == (0, 0, 0)
        assert not difference["significant"]


def test_a_real_difference_is_significant_and_paired():
    """Better by the same amount for every user, while users differ more than that."""
    worse, better = (
        sample_of(RATINGS, rating_users(4, noise=1.0)),
        sample_of(RATINGS, rating_users(4, noise=0.0)),
    )
    about = Bootstrap(seed=0, samples=500).difference(better, worse)["mae"]
    assert about["value"] < 0
    assert about["high"] < 0
    assert about["significant"]


def test_of_few_users_no_difference_is_beyond_chance():
    """All of five lie on one side by chance one time in 16, however far; of one, always."""
    for users, told in ((1, False), (2, False), (5, False), (6, True)):
        worse, better = (
            sample_of(RATINGS, rating_users(4, users=users, noise=noise)) for noise in (1.0, 0.0)
        )
        about = Bootstrap(seed=0, samples=500).difference(better, worse)["mae"]
        assert about["high"] < 0
        assert about["significant"] is told


@pytest.mark.parametrize("task", ["LaMP_2M", "LaMP_3", "LaMP_4"])
def test_the_share_is_zero_at_the_lower_bound_and_one_at_the_upper(tmp_path, task):
    folder = write_run(tmp_path, task, answers={"base": "unknown", "personal": "bayes"})
    summary = summarise(folder)
    assert summary["share"]["base"]["value"] == pytest.approx(0)
    assert summary["share"]["personal"]["value"] == pytest.approx(1)
    main = summary["main"]
    bounds = summary["bounds"]["targets"]
    assert summary["stages"]["personal"]["metrics"][main]["value"] == bounds["bayes"][main]["value"]


def test_who_was_dropped_from_a_stage_is_in_no_comparison_of_users(tmp_path):
    folder = write_run(tmp_path, "LaMP_2M")
    path = folder / "results" / "evaluate-personal.json"
    left = read_json(path)
    left.pop("targets-0")
    write_json(path, left)
    summary = summarise(folder)
    assert sorted(summary["users"]) == sorted(left)
    assert all(set(stages) == set(summary["stages"]) for stages in summary["users"].values())


def test_the_share_of_the_way_to_the_limit_is_told_at_every_length(tmp_path):
    folder = write_run(tmp_path, "LaMP_2M")
    bounds = read_json(folder / "bounds.json")
    golds = {user: [answer["gold"] for answer in answers] for user, answers in bounds.items()}
    write_json(folder / "limit.json", {user: {"0": gold, "4": gold} for user, gold in golds.items()})
    none, four = summarise(folder)["history"]
    assert "share" not in none
    assert four["limit"]["accuracy"]["value"] == 1
    alone, own = (point["metrics"]["accuracy"]["value"] for point in (none, four))
    assert four["share"]["value"] == pytest.approx((own - alone) / (1 - alone))


def test_where_knowing_the_user_gains_nothing_there_is_no_share():
    same = sample_of(RATINGS, rating_users(4))
    better = sample_of(RATINGS, rating_users(4, noise=0.0))
    bootstrap = Bootstrap(seed=0, samples=50)
    assert bootstrap.share(better, same, same, "mae") is None
    assert bootstrap.share(better, same, better, "mae") is not None


def test_bytes_are_those_of_the_ledger(tmp_path):
    folder = write_run(tmp_path, "LaMP_2M")
    sent = summarise(folder)["communication"]
    entries = Ledger(folder / "ledger" / "train.jsonl").entries()
    for number in (1, 2):
        about = next(one for one in sent["rounds"] if one["round"] == number)
        for way in ("down", "up"):
            chosen = [e for e in entries if e.round == number and e.direction == way]
            assert about[way]["payload"] == sum(e.payload for e in chosen)
            assert about[way]["message"] == sum(e.message for e in chosen)
            assert about[way]["messages"] == len(chosen)
    assert sent["alternatives"] == {"LoRA r=8 on q, v": 4 * 49_152, "full model": 4 * 4_000_000}
    assert sent["personal-parameters"] == 2 * (2 * 4 * 192 + 4)
    assert sent["personal-bytes-sent"] == 0


def test_the_payload_of_a_message_is_told_for_each_way(tmp_path):
    folder = write_run(tmp_path, "LaMP_2M")
    file = folder / "ledger" / "train.jsonl"
    entries = [replace(one, payload=36 if one.direction == "up" else 968) for one in Ledger(file).entries()]
    file.unlink()
    Ledger(file).add(entries)
    summary = summarise(folder)
    told = {name: value for name, value in final_figures(summary).items() if name.startswith("bytes/")}
    assert told == {"bytes/payload-down": 968, "bytes/payload-up": 36}
    write_metrics(folder)
    page = write_report(folder).read_text(encoding="utf-8")
    assert "36 B up and 968 B down per client and round" in " ".join(page.split())


def test_bytes_of_personal_shifts_are_those_that_the_scan_found(tmp_path):
    sent = summarise(write_run(tmp_path, "LaMP_2M", leaked=(0, 16, 0, 7)))["communication"]
    assert sent["personal-bytes-sent"] == 23
    assert sent["scanned"] == {"replies": 8, "bytes": 2000, "personal": 23}


def test_phases_may_be_missing_and_users_may_share_nothing(tmp_path):
    folder = write_run(tmp_path, "LaMP_3")
    (folder / "results" / "evaluate-personal.json").unlink()
    (folder / "rounds.json").unlink()
    for path in (folder / "ledger").iterdir():
        path.unlink()
    silent = read_json(folder / "results" / "evaluate-base.json")
    next(iter(silent.values()))["metrics"] = {}
    write_json(folder / "results" / "evaluate-base.json", silent)
    summary = summarise(folder)
    assert set(summary["stages"]) == {"base", "collective"}
    assert summary["stages"]["base"]["users"] == summary["stages"]["collective"]["users"] - 1
    assert set(summary["differences"]) == {"collective-base"}
    assert summary["communication"] == {}


def test_the_same_folder_gives_the_same_figures(tmp_path: Path):
    folder = write_run(tmp_path, "LaMP_2M")
    assert summarise(folder) == summarise(folder)


OTHER_STUDIES = {
    "a comparison": {"tasks": ["LaMP_2M"], "users": 4},
    "a tuning": {"task": "LaMP_2M", "rates": [0.01], "epochs": [4]},
}


@pytest.mark.parametrize("values", OTHER_STUDIES.values(), ids=OTHER_STUDIES)
def test_the_folder_of_another_study_is_told_and_left_alone(values: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "settings.json", values)
    write_json(tmp_path / "metrics.json", {"kept": True})
    with pytest.raises(InputError, match="no run of `simulate`"):
        write_metrics(tmp_path)
    assert read_json(tmp_path / "metrics.json") == {"kept": True}

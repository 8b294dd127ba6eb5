"""From answers to figures: LaMP's metrics, paired differences, files that LaMP's evaluation takes."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, root_mean_squared_error
from tests.simulation.compare.small_comparison import started

from fedperfit.protocol.system.files import read_json, write_json_lines
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.compare.cells import COLLECTIVE, HISTORY, MAIN, SEARCH, WorkerState, WorkUnit
from fedperfit.simulation.compare.page import pictures, standing, terminal_table, verdict, write_page
from fedperfit.simulation.compare.results import METRICS, PREDICTIONS, TABLE, final_figures, write_results

NAMES = ["base", "majority-user", "oppu", "oppu-as-released", "perfit-stage1", "perfit"]
COSTS = {
    "items": 6,
    "bytes-down": 100,
    "bytes-up": 0,
    "fit-seconds": 0.5,
    "answer-seconds": 0.01,
    "peak-bytes": 2**20,
}


def shop_with_answers(folder: Path, task: str, *, seeds: tuple[int, ...] = (0, 1)) -> WorkerState:
    """Cells with random answers, some of them invalid; `perfit` is right more often."""
    names = [name for name in NAMES if name != "majority-user" or TASKS[task].labels]
    state = started(folder, tasks=[task], methods=names, seeds=list(seeds), world_questions=8, users=8)
    rng = random.Random(0)
    labels = [*TASKS[task].labels, "nonsense", "", " 7 "] if TASKS[task].labels else ["a bridge", "Why?", ""]
    people = state.participants(task)

    def line(target: Any, name: str, size: int = -1) -> dict[str, Any]:
        right = 0.8 if name == "perfit" else 0.3
        answers = [gold if rng.random() < right else rng.choice(labels) for gold in target.golds]
        return {
            "user": target.history.name,
            "size": size,
            "answers": answers,
            "parameters": len(name),
        } | COSTS

    for name in names:
        targets = people.targets[: state.methods[name].most_users]
        for seed in seeds:
            path = folder / WorkUnit(task, name, MAIN, seed).file
            write_json_lines(path, [line(target, name) for target in targets])
        for kind, sizes in ((HISTORY, (0, 4)), (COLLECTIVE, (2, -1))):
            path = folder / WorkUnit(task, name, kind, 0).file
            write_json_lines(path, [line(target, name, size) for size in sizes for target in targets[:2]])
        log = [{"draw": 0, "values": {"x": 1}, "score": 0.5, "questions": 4, "seconds": 1.0}]
        write_json_lines(folder / WorkUnit(task, name, SEARCH, 0).file, log)
    return state


def outputs(path: Path) -> dict[str, str]:
    return {one["id"]: one["output"] for one in json.loads(path.read_text())["golds"]}


def lamp_evaluation(folder: Path, name: str, task: str) -> dict[str, float]:
    """Read and score a prediction file as LaMP's evaluation.py does, with the libraries it builds on."""
    golds, predicted = (
        json.loads((folder / "golds.json").read_text()),
        json.loads((folder / name).read_text()),
    )
    assert golds["task"] == predicted["task"] == task
    gold, guess = outputs(folder / "golds.json"), outputs(folder / name)
    assert set(gold) == set(guess), "LaMP asks for exactly the questions of the gold file"
    pairs = [(gold[key].strip(), guess[key].strip()) for key in gold]
    if task == "LaMP_3":
        numbers = []
        for true, said in pairs:
            worst = 1.0 if abs(1 - float(true)) > abs(5 - float(true)) else 5.0
            numbers.append((float(true), float(said) if said in "12345" and said else worst))
        true, said = zip(*numbers, strict=True)
        return {"mae": mean_absolute_error(true, said), "rmse": root_mean_squared_error(true, said)}
    if TASKS[task].labels:
        true, said = zip(*pairs, strict=True)
        labels = list(TASKS[task].labels)
        return {
            "accuracy": accuracy_score(true, said),
            "f1": f1_score(true, said, labels=labels, average="macro", zero_division=0),
        }
    scorer = RougeScorer(["rouge1", "rougeL"])
    scores = [scorer.score(true, said) for true, said in pairs]
    return {
        "rouge-1": sum(s["rouge1"].fmeasure for s in scores) / len(scores),
        "rouge-L": sum(s["rougeL"].fmeasure for s in scores) / len(scores),
    }


@pytest.mark.parametrize("task", ["LaMP_2M", "LaMP_3", "LaMP_4"])
def test_the_table_is_what_lamps_evaluation_makes_of_the_files(tmp_path, task):
    state = shop_with_answers(tmp_path / "run", task)
    about = write_results(state)["tasks"][task]
    folder = state.folder / PREDICTIONS / task
    for row in about["rows"]:
        files = sorted(folder.glob(f"{row['method']}-seed-*.json"))
        assert len(files) == row["seeds"] == 2
        if row["method"] == "oppu-as-released":
            continue  # not all users
        each = [lamp_evaluation(folder, file.name, task) for file in files]
        for metric, value in each[0].items():
            mean = (value + each[1][metric]) / 2
            if metric in ("accuracy", "mae", "rouge-1", "rouge-L"):
                assert row["metrics"][metric]["value"] == pytest.approx(mean)
    one = shop_with_answers(tmp_path / "one", task, seeds=(0,))
    for row in write_results(one)["tasks"][task]["rows"]:
        if row["method"] != "oppu-as-released":
            expected = lamp_evaluation(one.folder / PREDICTIONS / task, f"{row['method']}-seed-0.json", task)
            for metric, value in expected.items():
                assert row["metrics"][metric]["value"] == pytest.approx(value)


def test_differences_are_paired_and_over_shared_users(tmp_path):
    about = write_results(shop_with_answers(tmp_path / "run", "LaMP_2M"))["tasks"]["LaMP_2M"]
    rows = {row["method"]: row for row in about["rows"]}
    assert "difference" not in rows["perfit"]
    gap = rows["base"]["difference"]["accuracy"]
    values = [rows[name]["metrics"]["accuracy"]["value"] for name in ("base", "perfit")]
    assert gap["value"] == pytest.approx(values[0] - values[1])
    assert gap["significant"]
    assert gap["high"] < 0
    assert (rows["oppu-as-released"]["users"], rows["oppu"]["users"]) == (6, 8)
    assert [(pair["above"], pair["below"]) for pair in about["pattern"]] == [
        ("perfit", "perfit-stage1"),
        ("perfit", "oppu"),
    ]
    assert all(verdict(pair, lower=False) == "holds" for pair in about["pattern"])
    assert rows["perfit"]["share"]["value"] > rows["base"]["share"]["value"]
    assert about["bounds"]["bayes"]["accuracy"]["value"] > about["bounds"]["unknown"]["accuracy"]["value"]


@pytest.mark.parametrize(
    ("value", "low", "high", "lower", "said"),
    [
        (0.2, 0.1, 0.3, False, "holds"),
        (0.2, 0.1, 0.3, True, "reversed"),
        (-0.2, -0.3, -0.1, True, "holds"),
        (-0.2, -0.3, -0.1, False, "reversed"),
        (0.2, -0.1, 0.3, False, "within chance"),
    ],
)
def test_verdicts(value, low, high, lower, said):
    pair = {"value": value, "low": low, "high": high, "significant": low > 0 or high < 0}
    assert verdict(pair, lower=lower) == said
    if said != "within chance":
        assert verdict(pair | {"significant": False}, lower=lower) == "too few users to tell"


def test_the_table_of_cells_is_tidy(tmp_path):
    state = shop_with_answers(tmp_path / "run", "LaMP_3")
    write_results(state)
    with (state.folder / TABLE).open() as file:
        rows = list(csv.DictReader(file))
    keys = [(r["method"], r["kind"], r["seed"], r["size"], r["user"]) for r in rows]
    assert len(set(keys)) == len(keys) == (5 * 8 + 6) * 2 + 6 * 8
    assert all(0 <= float(row["mae"]) <= 4 for row in rows)
    assert read_json(state.folder / METRICS)["tasks"]["LaMP_3"]["main"] == "mae"


@pytest.mark.parametrize("task", ["LaMP_2M", "LaMP_3", "LaMP_4"])
def test_the_page_shows_every_row_and_curve(tmp_path, task):
    state = shop_with_answers(tmp_path / "run", task)
    summary = write_results(state)
    write_page(state.folder, summary, state.settings)
    text = (state.folder / "report.html").read_text()
    about = summary["tasks"][task]
    for row in about["rows"]:
        assert row["title"] in text
    assert text.count("<svg") == 5
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert [point["size"] for point in about["history"]["perfit"]] == [0, 4]
    assert [point["size"] for point in about["collective"]["perfit"]] == [2, 4]
    assert terminal_table(task, about).row_count == len(about["rows"])


def test_results_of_a_run_that_has_just_begun(tmp_path):
    state = started(tmp_path / "run")
    summary = write_results(state)
    write_page(state.folder, summary, state.settings)
    assert summary == {"tasks": {}}


def test_who_follows_a_comparison_gets_its_figures_and_no_users(tmp_path: Path) -> None:
    state = shop_with_answers(tmp_path / "run", "LaMP_2M")
    summary = write_results(state)
    figures = final_figures(summary)
    rows = {row["method"]: row for row in summary["tasks"]["LaMP_2M"]["rows"]}
    for name in ("perfit", "base"):
        value = rows[name]["metrics"]["accuracy"]["value"]
        assert figures[f"LaMP_2M/rows/{name}/metrics/accuracy/value"] == value
    users = {target.history.name for target in state.participants("LaMP_2M").targets}
    assert not [name for name in figures if users & set(name.split("/"))]
    assert "LaMP_2M Scores" in pictures(state.folder)


def test_of_too_few_users_nothing_is_said_to_be_beyond_or_within_chance():
    def row(method: str, title: str, value: float, difference: float | None) -> dict[str, Any]:
        metrics = {"accuracy": {"value": value}}
        beside = {} if difference is None else {"accuracy": {"value": difference, "significant": True}}
        return {"method": method, "title": title, "metrics": metrics} | (
            {} if difference is None else {"difference": beside}
        )

    rows = [row("perfit", "PerFit", 0.9, None), row("base", "base model", 0.4, -0.5)]
    about = {"main": "accuracy", "lower-is-better": False, "rows": rows}
    assert standing(about | {"users": 5}) == "PerFit: accuracy 0.900. Too few to tell rows apart: 5 users."
    assert "Worse: 1 of 1." in standing(about | {"users": 6})

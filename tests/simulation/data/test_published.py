"""The layouts of other benchmarks, read by the mappings that ship, from small files made up here."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS, PromptForm, task_by_name
from fedperfit.simulation.data.cli import data_app
from fedperfit.simulation.data.lamp import LampData, open_lamp
from fedperfit.simulation.data.lamp_files import Layout

REVIEWS, TOPICS, ABSTRACTS = (TASKS[f"LongLaMP_{number}"] for number in (4, 3, 2))


def review(number: int) -> dict[str, Any]:
    return {
        "overall": 4.0,
        "description": f"Lamp {number}",
        "summary": "Bright",
        "reviewText": f"It glows {number}.",
    }


def reviewer(name: str, items: int) -> dict[str, Any]:
    asked = (
        'Generate the review text written by a reviewer who has a given an overall rating of "4.0" for a '
        'product with description "Lamp 9". The summary of the review text is "Bright".'
    )
    own = [review(number) for number in range(items)]
    return {"reviewerId": name, "input": asked, "output": "It glows 9.", "profile": own}


def written(folder: Path, files: dict[str, list[dict[str, Any]]]) -> Path:
    """Write records, each file in the form that its ending tells."""
    folder.mkdir(exist_ok=True)
    for name, values in files.items():
        lines = "\n".join(json.dumps(value) for value in values).encode()
        if name.endswith(".parquet"):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(values), folder / name)
        else:
            (folder / name).write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
            if name.endswith(".json"):
                (folder / name).write_text(json.dumps(values))
    return folder


def opened(folder: Path, task: str) -> LampData:
    return open_lamp(folder, TASKS[task], folder / "cache")


@pytest.mark.parametrize("ending", ["-00000-of-00001.parquet", ".json", ".jsonl.gz"])
def test_long_reviews(tmp_path: Path, ending: str):
    people = {"train": [reviewer("r1", 2), reviewer("r2", 3)], "test": [reviewer("r3", 2)]}
    files = {f"{part}{ending}": values for part, values in people.items()}
    data = opened(written(tmp_path / "product_review_user", files), "LongLaMP_4")
    assert data.layout is Layout.PUBLISHED
    assert (data.users("others"), data.users("targets"), data.remarks) == (["r1", "r2"], ["r3"], [])
    target = data.user("targets", "r3")
    (question,) = target.questions
    assert len(target.history) == 2
    assert question["gold"] == "It glows 9."
    # An item is worded as the benchmark words its questions.
    item = {"product": target.history[1]["product"].replace("Lamp 1", "Lamp 9"), "review": "It glows 9."}
    asked = REVIEWS.query_pair(question["input"], question["gold"], PromptForm.LAMP)
    assert REVIEWS.item_pair(item, PromptForm.LAMP) == asked
    assert data.user("others", "r1").questions[0]["gold"] == "It glows 9."


def test_users_of_a_split_by_time_are_told_apart_and_see_no_later_item(tmp_path: Path):
    early, late = reviewer("r1", 2), reviewer("r1", 3)
    data = opened(
        written(tmp_path / "reviews", {"train.json": [early], "val.json": [early, late]}), "LongLaMP_4"
    )
    assert (data.users("others"), data.users("targets")) == (["others-r1"], ["targets-r1"])
    target = data.user("targets", "targets-r1")
    assert (len(target.history), len(target.questions)) == (2, 2)
    assert len({question["id"] for question in target.questions}) == 2


def test_topics_and_abstracts(tmp_path: Path):
    post = {"author": "a", "content": "I rose at five.", "summary": "mornings", "id": "1"}
    asked = {"author": "a", "input": "Generate the content for a reddit post nights", "output": "I slept."}
    topics = written(
        tmp_path / "topics", {f"{part}.json": [asked | {"profile": [post]}] for part in ("train", "test")}
    )
    (question,) = opened(topics, "LongLaMP_3").user("targets", "targets-a").questions
    assert TOPICS.query_fields(question["input"]) == {"summary": "nights"}
    paper = {"title": "On it", "abstract": "We show.", "year": 2001, "id": "1"}
    asked = {"name": "b", "input": 'Generate an abstract for the title "Of it" using: x', "output": "We see."}
    papers = written(
        tmp_path / "papers", {f"{part}.json": [asked | {"profile": [paper]}] for part in ("train", "dev")}
    )
    target = opened(papers, "LongLaMP_2").user("targets", "targets-b")
    assert target.history == [{"title": '"On it"', "abstract": "We show."}]
    assert ABSTRACTS.query_fields(target.questions[0]["input"]) == {"title": '"Of it" using: x'}


def person(name: str) -> dict[str, Any]:
    posts = [
        {"id": f"{name}-{n}", "category": "books", "text": f"Which book is it? I read {n}."} for n in range(3)
    ]
    return {"id": name, "question": "Who wrote it?", "narrative": "I found it in a box.", "profile": posts}


def test_one_split_alone_is_divided_by_user(tmp_path: Path):
    names = [f"q{number}" for number in range(8)]
    folder = written(
        tmp_path / "qa", {"Society_and_Culture_validation.json": [person(name) for name in names]}
    )
    data = opened(folder, "LaMP-QA")
    assert (len(data.users("others")), len(data.users("targets"))) == (6, 2)
    (name, _) = data.users("targets")
    target = data.user("targets", name)
    assert [item["text"] for item in target.history] == [f"Which book is it? I read {n}." for n in range(3)]
    assert [(one["input"].rpartition(": ")[2], one["gold"]) for one in target.questions] == [
        ("Who wrote it?", "I found it in a box.")
    ]


def chooser(name: int, choices: str) -> dict[str, Any]:
    own: dict[str, Any] = {"person_id": name}
    for number in range(1, 5):
        known = number <= len(choices)
        parts = {"prompt": "Why?", "a": f"Because {number}.", "b": "No idea."}
        keys = {"prompt": f"prompt_{number}", "a": f"response_{number}_a", "b": f"response_{number}_b"}
        own |= {key: parts[part] if known else None for part, key in keys.items()}
        own[f"chosen_{number}"] = choices[number - 1] if known else None
    return own


@pytest.mark.parametrize("name", ["train-00000-of-00001.parquet", "train.jsonl"])
def test_numbered_columns_are_a_persons_choices(tmp_path: Path, name: str):
    folder = written(tmp_path / "pairs", {name: [chooser(0, "abba"), chooser(1, "aab"), chooser(2, "bxb")]})
    data = opened(folder, "PersonalLLM")
    people = [data.user(group, user) for group in ("others", "targets") for user in data.users(group)]
    chosen = {one.name: "".join(item["chosen"] for item in one.history) for one in people}
    held = {one.name: "".join(question["gold"] for question in one.questions) for one in people}
    assert {user: chosen[user] + held[user] for user in chosen} == {"0": "abba", "1": "aab", "2": "bb"}
    assert sum(map(bool, held.values())) == 1
    counted = ", row " if name.endswith(".parquet") else ", line "
    assert [remark.partition(counted)[2] for remark in data.remarks] == [
        "3, item 2: chosen='x': expected one of a, b; left out"
    ]


def test_a_bad_item_or_question_costs_itself_alone_and_is_shown(tmp_path: Path):
    broken = reviewer("r1", 2)
    broken["profile"] += [{"overall": 1}, 7]
    people = {
        "train.json": [broken, {"reviewerId": "r0", "profile": "x"}],
        "test.json": [reviewer("r2", 1) | {"output": ""}],
    }
    folder = written(tmp_path / "reviews", people)
    shown = CliRunner().invoke(data_app, ["show", str(folder), "--task", "LongLaMP_4"])
    assert shown.exit_code == 0, shown.output
    for told in (
        "train.json, entry 1, item 3: no 'reviewText'; left out",
        "train.json, entry 1, item 4: expected an object; left out",
        "train.json, entry 2, item 1: no list under 'profile'; left out",
        "test.json, entry 1: no text under 'output'; the question is left out",
        "test.json, user r2: no question is left",
        "as published",
    ):
        assert told in shown.output


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "no file with train, val or test in its name"),
        ({"train.json": [], "test.json": [reviewer("r", 1)]}, "train.json: no users with usable items"),
        ({"train.parquet": [{"reviewerId": "r", "input": ""}]}, "train.parquet: no column 'profile'"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, files: dict[str, list[dict[str, Any]]], told: str):
    with pytest.raises(InputError) as caught:
        opened(written(tmp_path / "data", files), "LongLaMP_4")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('templates = {mood = "{a}"}', "templates.mood: Notes has the fields note"),
        ('templates = {note = "{a!r}"}', "expected columns in braces"),
        ('templates = {note = "{a"}', "broken template"),
        ('question = {text = "a", target = "b"}', "question: expected beside `items`"),
        ('items = "a"\nfields = {note = "note_{n}"}', "numbered columns or `items`, not both"),
    ],
)
def test_columns_that_exclude_each_other_are_one_line(tmp_path: Path, keys: str, told: str):
    task = task_by_name('name = "Notes"\nkind = "text"\nfields = ["note"]\ntarget = "reply"\n')
    (tmp_path / "own.toml").write_text(f'file = "a.csv"\nuser = "u"\n{keys}\n')
    with pytest.raises(InputError, match=r"own\.toml") as caught:
        open_lamp(tmp_path / "own.toml", task, tmp_path / "cache")
    assert told in str(caught.value)

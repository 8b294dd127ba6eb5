"""What the readers refuse: one clear line for wrong files, and a skipped item for a wrong label."""

import copy
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.simulation.data.lamp_folders import (
    HISTORY,
    LABELS,
    LAYOUTS,
    RATING,
    Files,
    no_tables,
    opened,
    oppu,
    outcome,
    refusal,
    user_split,
)

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import task_by_name
from fedperfit.simulation.data.lamp import open_lamp
from fedperfit.simulation.data.lamp_files import GROUPS


def test_missing_folder_and_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        open_lamp(tmp_path / "nowhere", RATING, tmp_path / "cache")
    (tmp_path / "mails.csv").write_text("person,mail,answered\n")
    for task in (RATING, task_by_name("LongLaMP_4")):
        with pytest.raises(InputError, match=r"mails.csv: is a file; expected a mapping that ends in .toml"):
            open_lamp(tmp_path / "mails.csv", task, tmp_path / "cache")
    message = refusal(tmp_path, {})
    assert "train_questions.json" in message
    assert "user_top_100_history_label.json" in message
    files = oppu()
    del files["user_top_100_history_label.json"]
    assert refusal(tmp_path, files).endswith("user_top_100_history_label.json missing")
    assert "one layout per folder" in refusal(tmp_path, oppu() | user_split())


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        (HISTORY, b"", "an empty file"),
        (HISTORY, b"\n <!DOCTYPE html>", "an HTML page, not JSON"),
        (HISTORY, b'[\n {"user_id": 1,\n  oops}]', "line 3, column 3: broken JSON"),
        (HISTORY, b'[{"user_id": "0"', "line 1, column 17: broken JSON"),
        (HISTORY, b'["\xff"]', "line 1, column 3: broken JSON"),
        (HISTORY, b'["\xed\xb0\x80x"]', "broken JSON (not UTF-8 text)"),
        (HISTORY, b"[" * 200_000, "nested more than 32 levels deep"),
        (HISTORY, b"{}", "expected a JSON list, found an object"),
        (HISTORY, b"[]", "holds no users"),
        (HISTORY, b"[3]", "entry 1: expected an object"),
        (LABELS, b"[]", "expected a JSON object"),
        (LABELS, b'{"task": "LaMP_4", "golds": []}', "answers of task 'LaMP_4', not of LaMP_3"),
        (LABELS, b'{"task": "LaMP_3", "golds": {}}', "no list under 'golds'"),
        (LABELS, b'{"task": "LaMP_3", "golds": [{"id": "1"}]}', "gold 1: no 'output'"),
    ],
)
def test_broken_files(tmp_path: Path, file: str, content: bytes, expected: str) -> None:
    message = refusal(tmp_path, oppu() | {file: content})
    assert str(tmp_path / "data" / file) in message
    assert expected in message


def test_broken_json_far_into_a_file_is_placed_exactly(tmp_path: Path) -> None:
    good = ",\n".join(json.dumps(user) for user in oppu()["user_others.json"] * 400)
    content = f"[{good},\n  x]".encode()
    assert len(content) > 4 * (1 << 16)
    message = refusal(tmp_path, oppu() | {"user_others.json": content})
    assert "the second with this id" in message, "earlier entries are checked first"
    numbers = iter(range(10_000))
    unique = re.sub(r'"o\d"', lambda _: f'"u{next(numbers)}"', content.decode())
    assert "line 1201, column 3" in refusal(tmp_path, oppu() | {"user_others.json": unique.encode()})


def _change(path: list[Any], value: Any) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        place: Any = files
        for step in path[:-1]:
            place = place[step]
        if value is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


TARGET = [HISTORY, 1]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_change([*TARGET, "user_id"], ...), "entry 2: no 'user_id'"),
        (_change([*TARGET, "user_id"], 2.5), "entry 2: 'user_id' must be a text, found float"),
        (_change([*TARGET, "user_id"], 0), "entry 2 (user 0): the second with this id"),
        (_change([*TARGET, "profile"], ...), "(user 1): no list under 'profile'"),
        (_change([*TARGET, "profile", 1], "x"), "(user 1), history item 2: expected an object"),
        (_change([*TARGET, "profile", 1, "text"], ...), "(user 1), history item 2: no 'text'"),
        (_change([*TARGET, "profile", 1, "score"], True), "history item 2: 'score' must be a text"),
        (_change([*TARGET, "profile", 1, "score"], None), "history item 2: 'score' must be a text"),
        (_change([*TARGET, "query"], {}), "(user 1): no list under 'query'"),
        (_change([*TARGET, "query", 0], 1), "(user 1): expected each question to be an object"),
        (_change([*TARGET, "query", 0, "input"], ...), "(user 1): no 'input'"),
        (_change([*TARGET, "query", 0, "id"], "0-0"), "question id 0-0 is used twice"),
        (_change([*TARGET, "query", 0, "id"], "new"), "(user 1): question new has no gold"),
        (_change([LABELS, "golds", 7, "id"], "0-0"), "gold 8: the second of question 0-0"),
        (_change([LABELS, "golds", 7], ...), "(user 3): question 3-1 has no gold"),
        (_change([HISTORY, 3, "query"], []), "gold of 3-"),
        (_change(["user_others.json", 1, "query", 0, "gold"], ...), "(user o1), question oq1: no 'gold'"),
    ],
)
def test_wrong_content(tmp_path: Path, change: Callable[[Files], None], expected: str) -> None:
    files = oppu()
    change(files)
    assert expected in refusal(tmp_path, files)


def test_a_user_without_a_history_costs_that_user_alone(tmp_path: Path) -> None:
    files = oppu()
    files[HISTORY][1]["profile"] = []
    files["user_others.json"][0]["profile"] = []
    data = opened(tmp_path, files)
    assert (data.users("targets"), data.users("others")) == (["0", "2", "3"], ["o1", "o2"])
    assert sorted(remark.rpartition("/")[2] for remark in data.remarks) == [
        "user_others.json, entry 1 (user o0): no usable history; left out",
        f"{HISTORY}, entry 2 (user 1): no usable history; left out",
    ]
    for user in files[HISTORY]:
        user["profile"] = []
    assert "users, none with a usable history" in refusal(tmp_path / "again", files)


def test_official_files_that_disagree(tmp_path: Path) -> None:
    files = user_split()
    files["dev_questions.json"][1]["user_id"] = "9"
    assert "dev_questions.json, entry 2: user_id must be in all" in refusal(tmp_path, files)
    files = user_split()
    files["train_outputs.json"]["golds"].pop()
    assert "train_questions.json, entry 3 (user 12): question 12 has no gold" in refusal(tmp_path, files)


def test_a_wrong_label_costs_its_item_or_question(tmp_path: Path) -> None:
    files = oppu()
    files[HISTORY][2]["profile"][1]["score"] = "5 stars"
    files[HISTORY][2]["profile"][2]["score"] = "4.0"
    files[HISTORY][0]["profile"][0]["score"] = "no"
    files[LABELS]["golds"][4]["output"] = "4.5"
    files["user_others.json"][1]["query"][0]["gold"] = "x"
    data = opened(tmp_path, files)
    assert [one["score"] for one in data.user("targets", "2").history] == ["1", "4"]
    assert [question["id"] for question in data.user("targets", "2").questions] == ["2-1"]
    assert data.user("others", "o1").questions == []
    assert data.users("targets") == ["1", "2", "3"]
    told = [remark.rpartition("/")[2] for remark in data.remarks]
    asked = "expected one of 1, 2, 3, 4, 5; left out"
    assert told[0] == f"user_others.json, entry 2 (user o1): score='x': {asked}"
    assert told[1].startswith(f"{LABELS}, gold 5 (question 2-0): score='4.5'")
    assert told[2:] == [
        f"{HISTORY}, entry 1 (user 0), history item 1: score='no': {asked}",
        f"{HISTORY}, entry 1 (user 0): no usable history; left out",
        f"{HISTORY}, entry 3 (user 2), history item 2: score='5 stars': {asked}",
        f"{HISTORY}, entry 3 (user 2), history item 3: score='4.0' is taken as '4'",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for step, inner in steps for deeper in _paths(inner, (*path, step)))]


@st.composite
def broken(draw: st.DrawFn) -> Files:
    """A right folder of any layout with one file replaced, cut, overwritten or changed inside."""
    files = copy.deepcopy(draw(st.sampled_from(LAYOUTS))())
    name = draw(st.sampled_from(sorted(files)))
    data = json.dumps(files[name]).encode()
    match draw(st.sampled_from(["bytes", "cut", "overwrite", "value", "value", "delete"])):
        case "bytes":
            files[name] = draw(st.binary(max_size=40))
        case "cut":
            files[name] = data[: draw(st.integers(0, len(data)))]
        case "overwrite":
            at = draw(st.integers(0, len(data)))
            files[name] = data[:at] + draw(st.binary(min_size=1, max_size=3)) + data[at + 1 :]
        case kind:
            path = draw(st.sampled_from(_paths(files[name])))
            if path or kind == "value":
                change = draw(JSON) if kind == "value" else ...
                _change([name, *path], change)(files)
            files[name] = json.dumps(files[name]).encode()  # NaN and lone surrogates included
    return files


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=broken())
def test_anything_else_is_one_line_or_a_valid_result(files: Files) -> None:
    with tempfile.TemporaryDirectory() as root:
        data = outcome(Path(root), files)
        if isinstance(data, str):
            assert "\n" not in data
            assert no_tables(Path(root) / "cache")
            return
        for group in GROUPS:
            assert data.users(group)
            for name in data.users(group):
                user = data.user(group, name)
                assert all(isinstance(one["score"], str) for one in user.history)
                assert all(isinstance(text, str) for one in user.questions for text in one.values())

"""The readers of both layouts: right on right files, one clear line on wrong ones."""

import copy
import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.simulation.data.lamp_folders import Files, item, oppu, query, time_split, user_split, write

import fedperfit.simulation.data.lamp as lamp
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.data.lamp import LampData, open_lamp
from fedperfit.simulation.data.lamp_files import GROUPS, Layout

SHARED = Path(__file__).resolve().parents[4] / "shared" / "lamp"
RATING = TASKS["LaMP_3"]
LAYOUTS: list[Callable[[], Files]] = [oppu, user_split, time_split]


def opened(root: Path, files: Files) -> LampData:
    return open_lamp(write(root / "data", files), RATING, root / "cache")


def outcome(root: Path, files: Files) -> LampData | str:
    """The opened data or the message of the InputError."""
    try:
        return opened(root, files)
    except InputError as error:
        return str(error)


def refusal(root: Path, files: Files) -> str:
    """The one line that refuses `files`; a conversion that fails leaves no table."""
    message = outcome(root, files)
    assert isinstance(message, str)
    assert "\n" not in message
    assert no_tables(root / "cache")
    return message


def no_tables(cache: Path) -> bool:
    return all(entry.suffix == ".lock" for entry in cache.glob("*"))


def test_oppu_layout(tmp_path: Path) -> None:
    data = opened(tmp_path, oppu())
    assert data.layout is Layout.OPPU
    assert data.users("others") == ["o0", "o1", "o2"]
    assert data.users("targets") == ["0", "1", "2", "3"]
    other = data.user("others", "o1")
    assert other.name == "o1"
    assert other.history == [item(1), item(2)]
    assert other.questions == [query("oq1") | {"gold": " 4"}]
    target = data.user("targets", "2")
    assert target.history == [item(0), item(1), item(2)]
    assert target.questions == [query("2-0") | {"gold": "5 "}, query("2-1") | {"gold": "1 "}]


def test_official_user_split(tmp_path: Path) -> None:
    data = opened(tmp_path, user_split())
    assert data.layout is Layout.USER_SPLIT
    assert data.users("others") == ["10", "11", "12"]
    assert data.users("targets") == ["60", "61", "62"]
    user = data.user("targets", "61")
    assert user.history == [item(1), item(2)]
    assert user.questions == [query("61") | {"gold": "2 "}]


def test_official_time_split_groups_users_without_giving_answers_away(tmp_path: Path) -> None:
    data = opened(tmp_path, time_split())
    assert data.layout is Layout.TIME_SPLIT
    assert data.users("others") == ["others-7"]
    assert data.users("targets") == ["targets-7", "targets-8"]
    user = data.user("targets", "targets-7")
    assert [question["id"] for question in user.questions] == ["d1", "d3"]
    assert [question["gold"] for question in user.questions] == ["1 ", "3 "]
    # Oldest first, and without the item of 2015 that only the later question's profile holds.
    assert [one["date"] for one in user.history] == ["2010-2-3", "2010-11-01"]


def test_items_are_kept_exactly_but_for_the_answers_type(tmp_path: Path) -> None:
    files = oppu()
    odd = {
        "id": 7,
        "text": "é🙂\u0000\u2028",
        "score": 4,
        "": None,
        "nested": {"a": [1, 2.5, True]},
        "n": 2**60,
    }
    files["user_top_100_history.json"][0]["profile"] = [odd]
    expected = odd | {"score": "4"}
    found = opened(tmp_path, files).user("targets", "0").history[0]
    assert found == expected
    assert list(found) == list(expected)


def test_undated_histories_keep_their_order(tmp_path: Path) -> None:
    files = oppu()
    profile = [item(1, date="2020-01-01"), item(2), item(3, date="2010-01-01")]
    files["user_top_100_history.json"][0]["profile"] = profile
    assert opened(tmp_path, files).user("targets", "0").history == profile


def test_unknown_group_and_user(tmp_path: Path) -> None:
    data = opened(tmp_path, oppu())
    with pytest.raises(InputError, match="unknown group 'dev'"):
        data.users("dev")
    with pytest.raises(InputError, match="no user 'o0' among the 4 targets"):
        data.user("targets", "o0")


def test_converts_once_and_again_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversions = []
    convert = lamp._convert
    monkeypatch.setattr(lamp, "_convert", lambda *args: conversions.append(1) or convert(*args))
    opened(tmp_path, oppu())
    assert len(open_lamp(tmp_path / "data", RATING, tmp_path / "cache").users("others")) == 3
    assert len(conversions) == 1
    files = oppu()
    files["user_others.json"].pop()
    assert len(opened(tmp_path, files).users("others")) == 2
    assert len(conversions) == 2
    tables = [entry for entry in (tmp_path / "cache").iterdir() if entry.suffix != ".lock"]
    assert len(tables) == 1, "the table of the old files is gone"


def test_a_change_that_keeps_the_size_is_seen(tmp_path: Path) -> None:
    files = oppu()
    opened(tmp_path, files)
    before = (tmp_path / "data" / "user_others.json").stat()
    files["user_others.json"][0]["user_id"] = "p0"
    write(tmp_path / "data", {"user_others.json": files["user_others.json"]})
    os.utime(tmp_path / "data" / "user_others.json", ns=(before.st_atime_ns, before.st_mtime_ns + 1000))
    assert open_lamp(tmp_path / "data", RATING, tmp_path / "cache").users("others")[0] == "p0"


def test_a_killed_conversion_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill leaves the part as it stands: here, half of the groups and no clean-up."""
    write_table = lamp._write_table

    def killed(target: Path, *args: Any) -> None:
        if target.name == "targets":
            raise KeyboardInterrupt
        write_table(target, *args)

    monkeypatch.setattr(lamp, "_write_table", killed)
    with monkeypatch.context() as no_clean_up:
        no_clean_up.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path, oppu())
    assert [entry.suffix for entry in (tmp_path / "cache").iterdir() if entry.is_dir()] == [".part"]
    monkeypatch.setattr(lamp, "_write_table", write_table)
    files = oppu()
    files["user_others.json"].pop()
    assert len(opened(tmp_path, files).users("others")) == 2, "nothing of the part is left"


def test_files_that_change_under_the_reader_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout_of = lamp.layout_of

    def change(folder: Path, files: Any) -> Layout:
        with (folder / "user_others.json").open("a") as file:
            file.write(" ")
        return layout_of(folder, files)

    monkeypatch.setattr(lamp, "layout_of", change)
    assert "changed while they were read" in refusal(tmp_path, oppu())


def test_two_processes_share_one_conversion(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", oppu())
    code = (
        "import sys; from pathlib import Path; from fedperfit.protocol.tasks import TASKS\n"
        "import fedperfit.simulation.data.lamp as lamp\n"
        "convert = lamp._convert\n"
        "lamp._convert = lambda *args: (print('converting'), convert(*args))\n"
        "data = lamp.open_lamp(Path(sys.argv[1]), TASKS['LaMP_3'], Path(sys.argv[2]))\n"
        "assert len(data.user('targets', '3').history) == 4\n"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    out = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(out).count("converting") == 1


def test_missing_folder_and_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        open_lamp(tmp_path / "nowhere", RATING, tmp_path / "cache")
    message = refusal(tmp_path, {})
    assert "train_questions.json" in message
    assert "user_top_100_history_label.json" in message
    files = oppu()
    del files["user_top_100_history_label.json"]
    assert refusal(tmp_path, files).endswith("user_top_100_history_label.json missing")
    assert "one layout per folder" in refusal(tmp_path, oppu() | user_split())


HISTORY = "user_top_100_history.json"
LABELS = "user_top_100_history_label.json"


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        (HISTORY, b"", "an empty file"),
        (HISTORY, b"\n <!DOCTYPE html>", "an HTML page, not JSON"),
        (HISTORY, b'[\n {"user_id": 1,\n  oops}]', "line 3, column 3: broken JSON"),
        (HISTORY, b'[{"user_id": "0"', "line 1, column 17: broken JSON"),
        (HISTORY, b'["\xff"]', "line 1, column 3: broken JSON"),
        (HISTORY, b'["\\udc00x"]', "broken JSON (not UTF-8 text)"),
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
        (_change([*TARGET, "profile"], []), "entry 2 (user 1): an empty history"),
        (_change([*TARGET, "profile"], ...), "(user 1): no list under 'profile'"),
        (_change([*TARGET, "profile", 1], "x"), "(user 1), history item 2: expected an object"),
        (_change([*TARGET, "profile", 1, "text"], ...), "(user 1), history item 2: no 'text'"),
        (_change([*TARGET, "profile", 1, "score"], True), "history item 2: 'score' must be a text"),
        (_change([*TARGET, "profile", 1, "score"], None), "history item 2: 'score' must be a text"),
        (_change([*TARGET, "profile"], [item(1, date="May")]), "date 'May' is not like"),
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


def test_files_may_be_compressed_and_begin_with_a_mark(tmp_path: Path) -> None:
    plain = opened(tmp_path, oppu())
    marked = {name: b"\xef\xbb\xbf" + json.dumps(value).encode() for name, value in oppu().items()}
    packed = {f"{name}.gz": gzip.compress(content) for name, content in marked.items()}
    for number, files in enumerate((marked, packed)):
        data = open_lamp(write(tmp_path / f"data-{number}", files), RATING, tmp_path / "cache")
        for group in GROUPS:
            assert [data.user(group, name) for name in data.users(group)] == [
                plain.user(group, name) for name in plain.users(group)
            ]
    cut = {name: content[:-20] for name, content in packed.items()}
    assert "broken gzip file" in refusal(tmp_path / "cut", cut)


@pytest.mark.parametrize("name", ["LaMP_3", "LaMP-3", "product_rating"])
def test_a_folder_of_tasks_holds_it_by_any_of_its_names(tmp_path: Path, name: str) -> None:
    files = oppu()
    files[LABELS]["task"] = "LaMP-3"
    write(tmp_path / "data" / name, files)
    assert open_lamp(tmp_path / "data", RATING, tmp_path / "cache").users("targets")


def test_both_lamp_2_tasks_answer_to_the_benchmarks_name(tmp_path: Path) -> None:
    files = user_split()
    for name in ("train_outputs.json", "dev_outputs.json"):
        files[name]["task"] = "LaMP_2"
    for name in ("train_questions.json", "dev_questions.json"):
        for question in files[name]:
            question["profile"] = [{"id": "1", "description": "d", "tag": "comedy"}]
    folder = write(tmp_path / "data", files)
    assert open_lamp(folder, TASKS["LaMP_2M"], tmp_path / "cache").users("targets")
    with pytest.raises(InputError, match="no 'text'"):
        open_lamp(folder, TASKS["LaMP_2N"], tmp_path / "cache")


MEMORY_PROBE = """
import json, re, sys, threading, time
from pathlib import Path
import datasets
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.data.lamp import open_lamp

def memory(key):  # bytes of this program only: ru_maxrss would start at the parent's
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

def watch():
    while True:
        seen.append(memory("RssAnon"))
        time.sleep(0.005)

small, big, cache = map(Path, sys.argv[1:])
open_lamp(small, TASKS["LaMP_3"], cache)
resident, seen = memory("VmHWM"), [memory("RssAnon")]
threading.Thread(target=watch, daemon=True).start()
data = open_lamp(big, TASKS["LaMP_3"], cache)
for name in data.users("targets")[::97]:
    assert len(data.user("targets", name).history) == 50
print(json.dumps([memory("VmHWM") - resident, max(seen) - seen[0], len(data.users("targets"))]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_stays_bounded(tmp_path: Path) -> None:
    """60 MB convert and are fetched from within a fraction of that."""
    small = write(tmp_path / "small", oppu())
    big = write(tmp_path / "big", oppu() | {LABELS: {"task": "LaMP_3", "golds": []}})
    words = "many plain words of a review " * 40
    with (big / HISTORY).open("w") as file:
        for number in range(1000):
            profile = [item(n, text=f"{number} {n} {words}") for n in range(50)]
            user = {"user_id": number, "profile": profile, "query": []}
            file.write(("," if number else "[") + json.dumps(user))
        file.write("]")
    size = (big / HISTORY).stat().st_size
    assert size > 58_000_000
    probe = subprocess.run(
        [sys.executable, "-c", MEMORY_PROBE, small, big, tmp_path / "cache"],
        capture_output=True,
        text=True,
        check=True,
    )
    resident, own, users = json.loads(probe.stdout)
    assert users == 1000
    assert own < size / 4, f"took {own / 1e6:.0f} MB of its own"
    # Resident memory also counts mapped pages of the table, which the system drops when it needs to.
    assert resident < size / 2, f"took {resident / 1e6:.0f} MB"


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


@pytest.mark.parametrize("name", ["LaMP_2N", "LaMP_3"])
def test_shared_oppu_folders(tmp_path: Path, name: str) -> None:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip("no shared data here")
    data = open_lamp(folder, TASKS[name], tmp_path)
    answer = TASKS[name].answer
    raw = {
        "others": json.loads((folder / "user_others.json").read_text()),
        "targets": json.loads((folder / HISTORY).read_text()),
    }
    gold = {one["id"]: one["output"] for one in json.loads((folder / LABELS).read_text())["golds"]}
    for group, users in raw.items():
        assert data.users(group) == [user["user_id"] for user in users]
        for user in random.Random(0).sample(users, 8):
            found = data.user(group, user["user_id"])
            dated = sorted(user["profile"], key=lambda one: one["date"])
            assert found.history == [one | {answer: str(one[answer])} for one in dated]
            assert found.questions == [
                {"id": one["id"], "input": one["input"], "gold": one.get("gold", gold.get(one["id"]))}
                for one in user["query"]
            ]


def test_shared_official_folder(tmp_path: Path) -> None:
    folder = SHARED / "LaMP_7"
    if not folder.is_dir():
        pytest.skip("no shared data here")
    data = open_lamp(folder, TASKS["LaMP_7"], tmp_path)
    for group, part in (("others", "train"), ("targets", "dev")):
        questions = json.loads((folder / f"{part}_questions.json").read_text())
        outputs = json.loads((folder / f"{part}_outputs.json").read_text())
        gold = {one["id"]: one["output"] for one in outputs["golds"]}
        assert data.users(group) == [question["id"] for question in questions]
        for question in questions[::50]:
            found = data.user(group, question["id"])
            assert found.history == question["profile"]
            expected = {"id": question["id"], "input": question["input"], "gold": gold[question["id"]]}
            assert found.questions == [expected]

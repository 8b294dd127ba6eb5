"""The readers of both layouts: right on right files, one clear line on wrong ones."""

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.data.lamp_folders import (
    HISTORY,
    LABELS,
    RATING,
    golds,
    item,
    opened,
    oppu,
    query,
    refusal,
    time_split,
    user_split,
    write,
)

import fedperfit.simulation.data.lamp as lamp
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.data.lamp import open_lamp
from fedperfit.simulation.data.lamp_files import GROUPS, Layout

SHARED = Path(__file__).resolve().parents[4] / "shared" / "lamp"


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


@pytest.mark.parametrize("part", ["train", "dev"])
def test_a_split_that_is_there_alone_is_divided_by_user(tmp_path: Path, part: str) -> None:
    names = [str(number) for number in range(8)]
    asked = [query(name) | {"profile": [item(n), item(n + 1)]} for n, name in enumerate(names)]
    asked[2]["profile"][0]["score"] = "9"
    answers = golds(names)
    answers["golds"][3]["output"] = "x"
    files = {f"{part}_questions.json": asked, f"{part}_outputs.json": answers}
    data = opened(tmp_path, files)
    groups = [set(data.users(group)) for group in GROUPS]
    assert [len(group) for group in groups] == [6, 2]
    assert groups[0] | groups[1] == set(names)
    people = {name: data.user(group, name) for group in GROUPS for name in data.users(group)}
    assert [len(people[name].history) for name in names] == [2, 2, 1, 2, 2, 2, 2, 2]
    assert [len(people[name].questions) for name in names] == [1, 1, 1, 0, 1, 1, 1, 1]
    assert len(data.remarks) == 2
    other = "dev" if part == "train" else "train"
    (tmp_path / "data" / f"{other}_questions.json").write_text("[]")
    with pytest.raises(InputError, match=f"{other}_outputs.json missing"):
        open_lamp(tmp_path / "data", RATING, tmp_path / "cache")


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


def test_an_item_without_a_readable_date_among_dated_ones_costs_itself(tmp_path: Path) -> None:
    files = oppu()
    profile = [item(1, date="2020-01-01"), item(2, date="May"), item(3, date="2010-01-01")]
    files["user_top_100_history.json"][0]["profile"] = profile
    data = opened(tmp_path, files)
    assert data.user("targets", "0").history == [profile[2], profile[0]]
    (told,) = data.remarks
    assert told.endswith("history item 2: date 'May' is not like 2012-05-18; left out")


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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_may_be_compressed_and_begin_with_a_mark(tmp_path: Path, encoding: str) -> None:
    plain = opened(tmp_path, oppu())
    marked = {name: json.dumps(value).encode(encoding) for name, value in oppu().items()}
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

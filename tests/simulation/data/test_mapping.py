"""Data of one's own in every form of file: the same users, and a bad line that costs itself alone."""

import csv
import gzip
import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzzing import FUZZED
from typer.testing import CliRunner

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import json_lines
from fedperfit.protocol.tasks import task_by_name
from fedperfit.simulation.data.cli import data_app
from fedperfit.simulation.data.lamp import LampData, open_lamp
from fedperfit.simulation.data.mapping import Mapping
from fedperfit.simulation.data.own_people import _NUMBER, _moments
from fedperfit.simulation.data.participants import participants
from fedperfit.simulation.world.settings import ParticipantCounts

EXAMPLE = Path(__file__).parents[3] / "examples" / "own_task"
TASK = 'name = "Mood"\nkind = "labels"\nfields = ["note"]\ntarget = "mood"\nlabels = ["up", "down"]\n'
MOOD = task_by_name(TASK)
RECORDS = [
    {
        "who": f"p{n % 4}",
        "when": f"2024-01-{20 - n // 4:02}",
        "text": f"note {n} é",
        "mood": ("up", "Down")[n % 2],
    }
    for n in range(32)
]
MAPPING = 'user = "who"\ntime = "when"\nfields = {note = "text"}\n'


def as_csv(records: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def as_parquet(records: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    dated = [record | {"when": datetime.fromisoformat(record["when"])} for record in records]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(dated), buffer)
    return buffer.getvalue()


LINES = "\n".join(json.dumps(record) for record in RECORDS).encode()
FORMS = {
    "notes.csv": b"\xef\xbb\xbf" + as_csv(RECORDS),
    "NOTES.CSV": as_csv(RECORDS),
    "Notes.Jsonl.GZ": gzip.compress(LINES),
    "notes.tsv": as_csv(RECORDS, "\t"),
    "notes.csv.gz": gzip.compress(as_csv(RECORDS)),
    "notes.json": json.dumps(RECORDS).encode(),
    "notes.json.gz": gzip.compress(json.dumps(RECORDS).encode()),
    "notes.jsonl": b"\xef\xbb\xbf" + LINES,
    "notes.jsonl.gz": gzip.compress(LINES),
    "packed.csv": gzip.compress(as_csv(RECORDS)),
    "packed.json": gzip.compress(json.dumps(RECORDS).encode()),
    "unpacked.csv.gz": as_csv(RECORDS),
    "unpacked.jsonl.gz": LINES,
    "notes.parquet": as_parquet(RECORDS),
}


def opened(root: Path, name: str, content: bytes, more: str = "") -> LampData:
    (root / name).write_bytes(content)
    mapping = root / "data.toml"
    mapping.write_text(f'file = "{name}"\n{MAPPING}{more}')
    return open_lamp(mapping, MOOD, root / "cache")


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_users(tmp_path: Path, name: str):
    data = opened(tmp_path, name, FORMS[name])
    assert (len(data.users("others")), len(data.users("targets"))) == (3, 1)
    (target,) = (data.user("targets", user) for user in data.users("targets"))
    assert (len(target.history), len(target.questions)) == (6, 2)
    own = [r for r in RECORDS[::-1] if r["who"] == target.name]
    expected = [{"note": r["text"], "mood": r["mood"].lower()} for r in own]
    assert target.history == expected[:6]
    assert [question["input"] for question in target.questions] == [one["note"] for one in expected[6:]]
    assert len(data.remarks) == 16
    assert data.remarks[0].endswith("mood='Down' is taken as 'down'")


@pytest.mark.parametrize(
    "times",
    [
        ["1700000000.25", "1700000000.5", "1700000001"],
        ["1611121299000", "1611121312000", "1611121399000"],
        ["-86400", "0", "86400"],
        ["20231231", "20240105", "20240301"],
        ["2023", "2023.12", "2024.01"],
        [1700000000.25, 1700000000.5, 1.7e18],
        [1700000000000000001, 1700000000000000002, 1700000000000000003],
        [2012.25, 2012.5, 2013],
        [10000131, 10000132, 10000201],
        ["999.5", "1234.25", "1234.5"],
        ["999,5", "1234,25", "1234,5"],
    ],
)
def test_times_of_every_form_are_in_their_order(tmp_path: Path, times: list[Any]):
    records = [
        {"who": who, "when": when, "text": f"{place}", "mood": "up"}
        for who in ("p1", "p2")
        for place, when in reversed([*enumerate(times)])
    ]
    lines = "\n".join(json.dumps(record) for record in records).encode()
    data = opened(tmp_path, "notes.jsonl", lines)
    (other,) = (data.user("others", name) for name in data.users("others"))
    assert [item["note"] for item in other.history] == ["0", "1", "2"]
    assert data.remarks == []


def test_a_date_that_does_not_begin_with_the_year_costs_its_line(tmp_path: Path):
    records = [record | {"when": "12/31/2023"} if n == 3 else record for n, record in enumerate(RECORDS)]
    data = opened(tmp_path, "notes.csv", as_csv(records))
    assert data.remarks[1].endswith("line 5: date '12/31/2023' is not like 2012-05-18; left out")


def test_a_number_among_dates_costs_its_line_since_nobody_knows_their_order(tmp_path: Path):
    odd = {2: "1704067200", 5: "2024", 6: "20240301"}
    records = [record | {"when": odd.get(n, record["when"])} for n, record in enumerate(RECORDS)]
    data = opened(tmp_path, "notes.csv", as_csv(records))
    (told,) = (remark for remark in data.remarks if "ordered" in remark)
    first = records[0]["when"]
    assert told.endswith(
        f"line 4: time '1704067200' cannot be ordered beside {first!r}: one is a date, the other "
        "a number; left out"
    )
    stamped = [record | {"when": str(n)} for n, record in enumerate(RECORDS)]
    stamped[3]["when"] = "2024-05-01"
    data = opened(tmp_path, "notes.csv", as_csv(stamped))
    assert [
        remark.partition(", line ")[2].split(" cannot")[0] for remark in data.remarks if "ordered" in remark
    ] == ["5: time '2024-05-01'"]


def test_a_first_time_of_another_kind_costs_its_line_alone(tmp_path: Path):
    records = [record | {"when": "45292"} if n == 0 else record for n, record in enumerate(RECORDS)]
    data = opened(tmp_path, "notes.csv", as_csv(records))
    (told,) = (remark for remark in data.remarks if "left out" in remark)
    assert "line 2: time '45292' cannot be ordered beside '2024-01-20'" in told


@pytest.mark.parametrize("when", ["2024-31-01", "2024-02-30", "20240230", "2024-01-20 10:75"])
def test_a_day_or_time_that_is_in_no_calendar_costs_its_line(tmp_path: Path, when: str):
    records = [record | {"when": when} if n == 3 else record for n, record in enumerate(RECORDS)]
    data = opened(tmp_path, "notes.csv", as_csv(records))
    (told,) = (remark for remark in data.remarks if "left out" in remark)
    assert f"line 5: date '{when}'" in told or f"line 5: time '{when}'" in told


def test_a_split_by_time_trains_on_everyones_earlier_items(tmp_path: Path):
    data = opened(tmp_path, "notes.csv", FORMS["notes.csv"], '[split]\nby = "time"\nquestions = 0.5\n')
    assert data.users("others") == [f"others-p{n}" for n in range(4)]
    for name in data.users("targets"):
        target = data.user("targets", name)
        assert target.history == data.user("others", name.replace("targets", "others")).history
        assert (len(target.history), len(target.questions)) == (4, 4)
    size = ParticipantCounts(others=9, targets=9, world_history=1, world_questions=1)
    people = participants(MOOD, str(tmp_path / "data.toml"), size, tmp_path)
    assert len(people.targets) == 4


def test_bad_lines_are_told_with_their_numbers_and_cost_themselves_alone(tmp_path: Path):
    lines = as_csv(RECORDS).decode().splitlines()
    lines[2:2] = [
        "p1,2024-01-01,a,sideways",
        "p1,soon,a,up",
        ",2024-01-01,a,up",
        "p1,2024-01-01",
        "p1,1,2,up,5",
    ]
    data = opened(tmp_path, "notes.csv", "\n".join(lines).encode())
    assert [remark.partition(", line ")[2] for remark in data.remarks][:5] == [
        "3: mood='sideways': expected one of up, down; left out",
        "4: date 'soon' is not like 2012-05-18; left out",
        "5: no user in ''; left out",
        "6: not as many cells as there are columns; left out",
        "7: not as many cells as there are columns; left out",
    ]
    assert sum(len(data.user("others", user).history) for user in data.users("others")) == 24
    task = tmp_path / "mood.toml"
    task.write_text(TASK)
    shown = CliRunner().invoke(data_app, ["show", str(tmp_path / "data.toml"), "--task", str(task)])
    assert shown.exit_code == 0, shown.output
    assert "mood='sideways': expected one of up, down; left out" in shown.output


def test_a_table_as_excel_writes_it_is_read_and_its_separator_shown(tmp_path: Path):
    data = opened(tmp_path, "notes.csv", as_csv(RECORDS, ";").decode().encode("utf-16"))
    assert (len(data.users("others")), len(data.users("targets"))) == (3, 1)
    told = f"{tmp_path / 'notes.csv'}: cells are taken as separated by semicolons"
    assert (data.remarks[0], len(data.remarks)) == (told, 17)
    (tmp_path / "mood.toml").write_text(TASK)
    words = ["show", str(tmp_path / "data.toml"), "--task", str(tmp_path / "mood.toml")]
    assert told in CliRunner().invoke(data_app, words).output


def test_numbers_with_a_comma_before_the_decimals_are_read_and_told(tmp_path: Path):
    task = tmp_path / "stars.toml"
    task.write_text(
        'name = "Stars"\nkind = "number"\nfields = ["note"]\ntarget = "mood"\n'
        'labels = ["4", "4.5", "1.234", "1234"]\n'
    )
    moods, times = ["4,5", "4,0", "1,234", "5,5"], ["45292,{}", "45.292,{}", "45,292", "2024,1"]
    records = [
        record
        | {"mood": moods[n % 4] if n < 4 else "4,5", "when": times[n % 4 if n in (6, 7) else 0].format(n)}
        for n, record in enumerate(RECORDS)
    ]
    (tmp_path / "notes.csv").write_bytes(as_csv(records, ";"))
    (tmp_path / "data.toml").write_text(
        'file = "notes.csv"\n' + MAPPING.replace("fields", 'target = "mood"\nfields')
    )
    show = ["show", str(tmp_path / "data.toml"), "--task", str(task)]
    shown = CliRunner().invoke(data_app, [*show, "--every-line"]).output
    for told in (
        "line 2: mood='4,5' is taken as '4.5'",
        "line 3: mood='4,0' is taken as '4'",
        "line 4: mood='1,234': may be 1.234 or 1234; expected one of 4, 4.5, 1.234, 1234; left out",
        "line 5: mood='5,5': expected one of 4, 4.5, 1.234, 1234; left out",
        "line 8: no time in '45,292': it may be 45.292 or 45292; left out",
    ):
        assert told in shown
    assert shown.count("left out") == 3
    once = (
        "notes.csv, 29 lines (2, 3, 6, 7, 9, 10, 11, 12, and 21 more): mood='4,5' is taken as '4.5'; 1 other"
    )
    assert once in CliRunner().invoke(data_app, show).output


def test_times_with_a_comma_before_the_decimals_sort_as_numbers():
    times = ["45.291,75", "45292", "45292,5", "45.292,75", "100000,5"]
    assert sorted(times, key=lambda time: _moments(time)[_NUMBER]) == times


def test_names_are_one_however_their_accents_and_blanks_are_made(tmp_path: Path):
    spelled = [
        "Zoe\u0308\u00a0Marie",
        "Zo\u00eb Marie",
        "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627",
        "ada\u202eb",
    ]
    records = [record | {"who": spelled[n % 4]} for n, record in enumerate(RECORDS)]
    data = opened(tmp_path, "notes.csv", as_csv(records))
    assert {*data.users("others"), *data.users("targets")} == {spelled[1], spelled[2]}
    assert sum("no user in 'ada\\u202eb'; left out" in remark for remark in data.remarks) == 8
    (tmp_path / "mood.toml").write_text(TASK)
    words = ["people", "--task", str(tmp_path / "mood.toml"), "--data", str(tmp_path / "data.toml"), "--to"]
    done = CliRunner().invoke(data_app, [*words, str(tmp_path / "made"), *spelled[::2]])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "made").iterdir()} == {spelled[1], spelled[2]}


@pytest.mark.parametrize(
    ("name", "content", "more", "told"),
    [
        ("notes.csv", b"", "", "notes.csv: an empty file"),
        ("notes.csv", b"who,wen,text,mood\n", "", "no column 'when'; the nearest is 'wen'"),
        ("notes.csv", b"\xff", "", "line 1: not UTF-8 text"),
        ("notes.csv.gz", gzip.compress(b"x")[:-4], "", "broken gzip file"),
        ("notes.json", b"[1", "", "line 1: broken JSON"),
        ("notes.json", b"{}", "", "expected a list of objects"),
        ("notes.parquet", b"x", "", "notes.parquet: "),
        ("notes.xlsx", b"", "", "expected a file that ends in .csv"),
        ("notes.csv", as_csv(RECORDS[:1]), "", "1 user with usable items; at least two"),
        (
            "notes.csv",
            as_csv([RECORDS[1], RECORDS[2] | {"when": "May"}]),
            "",
            "notes.csv, line 3: date 'May' is not like 2012-05-18; left out",
        ),
        ("notes.csv", as_csv([{**RECORDS[0], "mood": "x"}]), "", "line 2: mood='x': expected one of"),
        ("notes.csv", b"", "usr = 1\n", "unknown key 'usr'; the nearest is 'user'"),
        ("notes.csv", b"", '[split]\nby = "tiem"\n', "split.by='tiem'"),
        ("notes.csv", b"", "[split]\ntargets = 1.5\n", "split.targets=1.5"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, more: str, told: str):
    with pytest.raises(InputError) as caught:
        opened(tmp_path, name, content, more)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_that_no_file_can_have_is_one_line(tmp_path: Path):
    mapping = tmp_path / "data.toml"
    mapping.write_text(f'file = "notes\\u0000.csv"\n{MAPPING}')
    with pytest.raises(InputError, match=r"data\.toml: file='notes.x00\.csv'"):
        open_lamp(mapping, MOOD, tmp_path / "cache")


def test_the_copy_of_the_texts_is_closed_to_other_accounts(tmp_path: Path):
    opened(tmp_path, "notes.csv", FORMS["notes.csv"])
    (tables,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert list(tables.rglob("*.arrow"))
    assert tables.stat().st_mode & 0o077 == 0


def test_a_change_of_the_data_is_seen(tmp_path: Path):
    before = opened(tmp_path, "notes.csv", FORMS["notes.csv"])
    after = opened(tmp_path, "notes.csv", as_csv(RECORDS[:20]))
    assert len(before.remarks) != len(after.remarks)


@FUZZED
@given(data=st.data())
def test_fuzzed_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    folder = tmp_path_factory.getbasetemp() / "fuzzed-own"
    folder.mkdir(exist_ok=True)
    name = data.draw(st.sampled_from(sorted(set(FORMS) - {"notes.parquet"})))
    good = FORMS[name]
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 300)))
    piece = st.binary(max_size=12) | st.text(max_size=6).map(lambda text: json.dumps(text).encode())
    (folder / name).write_bytes(good[:start] + data.draw(piece) + good[end:])
    mapping = folder / "data.toml"
    mapping.write_text(f'file = "{name}"\n{MAPPING}')
    remarks: list[str] = []
    try:
        groups = Mapping.read(mapping, MOOD).rows(remarks.append)
    except InputError as error:
        assert "\n" not in str(error), error  # noqa: PT017
        return
    json.dumps([*groups.values(), remarks], ensure_ascii=False).encode()
    assert all(
        item["mood"] in MOOD.labels
        for rows in groups.values()
        for r in rows
        for item in json.loads(r["history"])
    )


EXAMPLE = Path(__file__).parents[3] / "examples" / "own_task"
PEOPLE = ["people", "--task", str(EXAMPLE / "urgency.toml"), "--data", str(EXAMPLE / "mails.toml"), "--to"]


def test_people_get_their_own_items(tmp_path: Path) -> None:
    done = CliRunner().invoke(data_app, [*PEOPLE, str(tmp_path), "hugo", "ada"])
    assert done.exit_code == 0, done.output
    with (EXAMPLE / "mails.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("ada", "hugo"):
        items = [dict(value) for _, value in json_lines(tmp_path / name / "history.jsonl")]  # type: ignore[arg-type]
        own = [(row["mail"], row["answered"]) for row in rows if row["person"] == name]
        assert items
        assert [(item["mail"], item["urgency"]) for item in items] == own[: len(items)]


def test_people_that_the_data_do_not_have_are_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(data_app, [*PEOPLE, str(tmp_path / "made"), "ada", "zoe"])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("the data have no user 'zoe': there are ")
    assert not (tmp_path / "made").exists()

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict
from tests.cloud.fake_grid import (
    HEADER,
    SHAPE,
    TRAINING,
    FakeGrid,
    federation,
    flat,
    honest,
    items_of,
    perturbed,
    reply_content,
)

from fedperfit.cloud.rounds.aggregation import aggregate, mean_shift
from fedperfit.protocol.messages.keys import (
    COUNTS_RECORD,
    METRICS_RECORD,
    SETTINGS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
)
from fedperfit.protocol.messages.settings import EvaluationSettings, PersonalSettings
from fedperfit.protocol.shift.packing import pack, read_header
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError

CLIENTS = dict(enumerate(("anna", "ben", "carl", "dora"), start=1))
PAYLOAD = pack(Shift.identity(SHAPE, seed=0), HEADER)
QUIET = lambda report: None  # noqa: E731


def train(folder: Path, **changes: object) -> tuple[Shift, FakeGrid]:
    grid = FakeGrid(CLIENTS, honest)
    return federation(folder, grid, **changes).train(CLIENTS.values(), QUIET), grid


def test_two_rounds_are_what_the_formula_says(tmp_path: Path) -> None:
    result, _ = train(tmp_path)
    shift = Shift.identity(SHAPE, seed=0)
    for number in (1, 2):
        shift = aggregate(
            [(perturbed(shift, f"{name}/{number}"), min(items_of(name), 6)) for name in CLIENTS.values()]
        )
    assert flat(result) == flat(shift)


def test_the_order_of_replies_does_not_matter(tmp_path: Path) -> None:
    results = set()
    for index, order in enumerate((["anna", "ben", "carl", "dora"], ["dora", "carl", "anna", "ben"])):
        job = federation(tmp_path / str(index), FakeGrid(CLIENTS, honest, order))
        shift = job.train(list(reversed(order)), QUIET)
        results.add(flat(shift) + job.ledger.path.read_bytes() + repr(job.history).encode())
    assert len(results) == 1


def test_updates_are_summed_in_the_order_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[list[float]] = []

    def spy(shifts: Callable[[], Iterator[Shift]], given: list[float]) -> Shift:
        weights.append(given)
        mean = mean_shift(shifts, given)
        assert flat(mean) == flat(aggregate(list(zip(shifts(), given, strict=True))))
        return mean

    monkeypatch.setattr("fedperfit.cloud.rounds.forms.mean_shift", spy)
    grid = FakeGrid(CLIENTS, honest, ["dora", "ben", "anna", "carl"])
    federation(tmp_path, grid, max_items=99).train(CLIENTS.values(), QUIET)
    by_name = [float(items_of(name)) for name in sorted(CLIENTS.values())]
    assert weights == [by_name, by_name]
    assert by_name != [float(items_of(name)) for name in grid.order]


def test_what_is_sent(tmp_path: Path) -> None:
    _, grid = train(tmp_path)
    assert [m.metadata.message_type for m in grid.pushed] == ["train.contribute"] * 8
    for index, message in enumerate(grid.pushed):
        number = 1 + index // 4
        assert set(message.content) == {SHIFT_RECORD, SETTINGS_RECORD}
        assert dict(message.content[SETTINGS_RECORD]) == TRAINING.to_config() | {"round": number}
        header, _ = read_header(message.content[SHIFT_RECORD][SHIFT_KEY].data)
        assert header.round == number - 1


def test_reports_and_ledger(tmp_path: Path) -> None:
    grid = FakeGrid(CLIENTS, honest)
    job = federation(tmp_path, grid)
    seen: list[int] = []
    job.train(CLIENTS.values(), lambda report: seen.append(report.round))
    assert seen == [1, 2]
    report = job.history[0]
    assert report.loss == pytest.approx(0.5)
    assert report.asked == report.admitted == sorted(CLIENTS.values())
    entries = job.ledger.entries()
    assert [(e.round, e.client, e.direction) for e in entries] == [
        (number, client, way)
        for number in (1, 2)
        for client in sorted(CLIENTS.values())
        for way in ("down", "up")
    ]
    packed = len(grid.pushed[0].content[SHIFT_RECORD][SHIFT_KEY].data)
    assert {e.payload for e in entries} == {packed}
    assert all(packed < e.message < packed + 600 for e in entries)
    assert report.bytes_up == sum(e.message for e in entries if e.round == 1 and e.direction == "up")


class Killed(Exception):
    """Stands in for kill -9."""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("moment", ["pushing", "pulling", "aggregating", "reporting"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_killed_run_resumes_to_the_same_bytes(
    moment: str, number: int, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = federation(tmp_path / "whole", FakeGrid(CLIENTS, honest), rounds=3, dtype=dtype)
    expected = flat(whole.train(CLIENTS.values(), QUIET))

    grid = FakeGrid(CLIENTS, honest)
    killed = federation(tmp_path / "killed", grid, rounds=3, dtype=dtype)

    def kill_at(count: int, original: object) -> object:
        calls = iter(range(10**6))

        def method(*args: object) -> object:
            if next(calls) == count:
                raise Killed
            return original(*args)  # type: ignore[operator]

        return method

    on_round = QUIET
    with monkeypatch.context() as patch:
        if moment == "pushing":
            patch.setattr(grid, "push_messages", kill_at(4 * number - 2, grid.push_messages))
        elif moment == "pulling":
            patch.setattr(grid, "pull_messages", kill_at(4 * number - 2, grid.pull_messages))
        elif moment == "aggregating":
            patch.setattr("fedperfit.cloud.rounds.forms.mean_shift", kill_at(number - 1, mean_shift))
        else:
            on_round = kill_at(number - 1, QUIET)  # type: ignore[assignment]
        with pytest.raises(Killed):
            killed.train(CLIENTS.values(), on_round)  # type: ignore[arg-type]

    resumed = federation(tmp_path / "killed", FakeGrid(CLIENTS, honest), rounds=3, dtype=dtype)
    reported: list[int] = []
    shift = resumed.train(CLIENTS.values(), lambda report: reported.append(report.round))
    assert flat(shift) == expected
    assert reported == list(range(number + (moment == "reporting"), 4))
    assert resumed.history == whole.history
    assert resumed.ledger.path.read_bytes() == whole.ledger.path.read_bytes()
    for file in sorted((tmp_path / "whole" / "checkpoints").iterdir()):
        assert file.read_bytes() == (tmp_path / "killed" / "checkpoints" / file.name).read_bytes()


def test_a_finished_run_asks_nobody_again(tmp_path: Path) -> None:
    first, _ = train(tmp_path)
    second, grid = train(tmp_path)
    assert flat(first) == flat(second)
    assert grid.pushed == []


@pytest.mark.parametrize("change", [{"rounds": 3}, {"seed": 1}, {"dtype": "bfloat16"}, {"max_norm": 5.0}])
def test_resuming_with_other_settings_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(InputError, match="run with other settings"):
        train(tmp_path, **change)


def test_sampling_depends_on_seed_and_round_alone(tmp_path: Path) -> None:
    names = {node: f"client-{node}" for node in range(10)}

    def asked(folder: str, seed: int) -> list[list[str]]:
        grid = FakeGrid(names, honest)
        job = federation(tmp_path / folder, grid, rounds=3, clients_per_round=3, seed=seed)
        job.train(random.Random(folder).sample(list(names.values()), 10), QUIET)
        return [report.asked for report in job.history]

    first = asked("one", 0)
    assert first == asked("two", 0)
    assert first != asked("three", 1)
    assert all(len(set(clients)) == 3 for clients in first)
    assert len({tuple(clients) for clients in first}) > 1


def test_over_selection_closes_the_round_at_its_goal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = {node: f"client-{node}" for node in range(8)}
    grid = FakeGrid(names, honest)
    job = federation(tmp_path, grid, rounds=1, clients_per_round=4, over_selection=1.5, goal=0.75)
    job.train(names.values(), QUIET)
    report = job.history[0]
    assert len(report.asked) == 6
    assert len(report.admitted) == 3
    assert report.dropped == {}
    assert caplog.messages == []
    directions = [entry.direction for entry in job.ledger.entries()]
    assert (directions.count("down"), directions.count("up")) == (6, 3)


def test_bad_replies_do_not_count_towards_the_goal(tmp_path: Path) -> None:
    def answer(client: str, message: Message) -> list[Message]:
        if client in ("client-0", "client-1", "client-2"):
            return [Message(RecordDict(), reply_to=message)]
        return honest(client, message)

    names = {node: f"client-{node}" for node in range(6)}
    job = federation(tmp_path, FakeGrid(names, answer), rounds=1, clients_per_round=3, over_selection=2.0)
    job.train(names.values(), QUIET)
    assert job.history[0].admitted == ["client-3", "client-4", "client-5"]


def test_too_few_updates_skip_the_round(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def answer(client: str, message: Message) -> list[Message]:
        if message.content[SETTINGS_RECORD]["round"] == 1 and client != "anna":
            return []
        return honest(client, message)

    job = federation(tmp_path, FakeGrid(CLIENTS, answer), min_updates=2)
    shift = job.train(CLIENTS.values(), QUIET)
    assert [report.skipped for report in job.history] == [True, False]
    assert "round 1: skipped, 1 updates: at least 2 are needed" in caplog.messages
    start = Shift.identity(SHAPE, seed=0)
    expected = aggregate(
        [(perturbed(start, f"{name}/2"), min(items_of(name), 6)) for name in CLIENTS.values()]
    )
    assert flat(shift) == flat(expected)


def test_a_round_nobody_answers_keeps_the_shift(tmp_path: Path) -> None:
    job = federation(tmp_path, FakeGrid(CLIENTS, lambda client, message: []))
    assert flat(job.train(CLIENTS.values(), QUIET)) == flat(Shift.identity(SHAPE, seed=0))
    assert [report.loss for report in job.history] == [None, None]


def test_nobody_to_ask(tmp_path: Path) -> None:
    job = federation(tmp_path, FakeGrid(CLIENTS, honest))
    with pytest.raises(InputError, match="no client"):
        job.train([], QUIET)
    with pytest.raises(InputError, match="'zoe' is not connected"):
        job.train(["zoe"], QUIET)


def test_bf16_travels_in_half_the_bytes_and_stays_orthonormal(tmp_path: Path) -> None:
    shift, grid = train(tmp_path, dtype="bfloat16")
    _, wide = train(tmp_path / "wide")
    assert (shift.R @ shift.R.mT - torch.eye(2)).abs().max() < 1e-5
    sizes = [len(g.pushed[0].content[SHIFT_RECORD][SHIFT_KEY].data) for g in (grid, wide)]
    assert sizes[1] - sizes[0] == 2 * SHAPE.parameters - len("bfloat16") + len("float32")


def counts_reply(message: Message, items: object, **metrics: object) -> list[Message]:
    content = RecordDict({COUNTS_RECORD: MetricRecord({"items": items, "round": 0})})
    if metrics:
        content[METRICS_RECORD] = MetricRecord({k.replace("_", "-"): v for k, v in metrics.items()})
    return [Message(content, reply_to=message)]


def test_personalize_returns_counts_and_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def answer(client: str, message: Message) -> list[Message]:
        if client == "ben":
            return [Message(reply_content(client, message), reply_to=message)]
        if client == "carl":
            return []
        return counts_reply(message, 3, loss=1.5) if client == "anna" else counts_reply(message, 0)

    grid = FakeGrid(CLIENTS, answer)
    job = federation(tmp_path, grid)
    personal = PersonalSettings(rank=1, additive=False, slot="main")
    counts = job.personalize(list(CLIENTS.values()), PAYLOAD, personal, TRAINING, "personalize")
    assert {name: (c.items, c.metrics) for name, c in counts.items()} == {
        "anna": (3, {"loss": 1.5}),
        "dora": (0, {}),
    }
    assert "personalize: dropped ben: unknown ArrayRecord 'shift'" in caplog.messages
    assert "personalize: dropped carl: no reply within 5 s" in caplog.messages
    config = dict(grid.pushed[0].content[SETTINGS_RECORD])
    assert config == TRAINING.to_config() | personal.to_config() | {"round": 0}
    assert grid.pushed[0].metadata.message_type == "train.personalize"
    assert {e.phase for e in job.ledger.entries()} == {"personalize"}


def test_evaluate_returns_the_metric_sums_of_the_task(tmp_path: Path) -> None:
    labels = [2] + [0] * 14

    def answer(client: str, message: Message) -> list[Message]:
        if client == "ben":
            return counts_reply(message, 2, correct=1)
        return counts_reply(
            message, 2, correct=1, true_positives=[1] + [0] * 14, predicted=labels, gold=labels
        )

    grid = FakeGrid(CLIENTS, answer)
    job = federation(tmp_path, grid)
    evaluation = EvaluationSettings(
        stage="personal", slot="main", additive=False, batch_size=4, prompt_form="lamp"
    )
    scores = job.evaluate(list(CLIENTS.values()), PAYLOAD, evaluation, "personal")
    assert list(scores) == ["anna", "carl", "dora"]
    assert scores["anna"].metrics["gold"] == labels
    assert grid.pushed[0].metadata.message_type == "evaluate.stage"
    assert grid.pushed[0].content[SHIFT_RECORD][SHIFT_KEY].data == PAYLOAD


def test_history_survives_json(tmp_path: Path) -> None:
    job = federation(tmp_path, FakeGrid(CLIENTS, honest))
    job.train(CLIENTS.values(), QUIET)
    for report in job.history:
        assert type(report).from_json(json.loads(json.dumps(report.to_json()))) == report

"""Rounds that wait for nobody, over scripted clients that take their time, against a slow oracle."""

import heapq
import math
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from flwr.app import Message
from tests.cloud.fake_grid import FakeClock, FakeGrid, federation, items_of
from tests.cloud.rounds.test_coordinate_rounds import BASIS, CLIENTS, Edges, Lie, drawn

from fedperfit.cloud.job.settings import JobSettings
from fedperfit.cloud.rounds.checkpoint import Checkpoints
from fedperfit.cloud.rounds.federation import Federation
from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.system.errors import InputError

SECONDS = {"anna": 1.0, "ben": 2.5, "carl": 1.7, "dora": 9.1, "emil": 4.3}


class SlowGrid(FakeGrid):
    """Replies come one by one, each when its client has had its time; the clock goes on to that."""

    def __init__(self, edges: Edges, clock: FakeClock) -> None:
        super().__init__(CLIENTS, edges)
        self.clock = clock
        self.due: dict[str, float] = {}
        self.most = 0
        """Messages that were on the way at the same time."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        (message,) = messages
        (name,) = super().push_messages([message])
        self.due[name] = self.clock.now + SECONDS[self.clients[message.metadata.dst_node_id]]
        self.most = max(self.most, len(self.queue))
        return [name]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        (wanted,) = message_ids
        first = min(self.queue, key=lambda entry: self.due[entry[1]], default=None)
        if first is None or first[1] != wanted:
            return []
        self.queue.remove(first)
        self.clock.now = max(self.clock.now, self.due[wanted])
        return first[2]


def train(folder: Path, clock: FakeClock, lie: Lie | None = None, **changes: object) -> Federation:
    values: dict[str, object] = {"rounds": 6, "deadline_seconds": 50.0, **changes}
    job = federation(folder, SlowGrid(Edges(lie), clock), basis=BASIS, **values)
    job.train(CLIENTS.values(), lambda report: None)
    return job


def numbers(job: Federation) -> torch.Tensor:
    checkpoint = job.checkpoints.latest()
    assert checkpoint is not None
    return torch.tensor(checkpoint.numbers)


def oracle(rounds: int, size: int) -> tuple[torch.Tensor, list[list[str]], list[int], list[float]]:
    """What a queue of events says: coordinates, members of rounds, how stale each was, ends of rounds."""
    theta, now = torch.zeros(BASIS.numbers), 0.0
    work: list[tuple[float, str, int]] = []
    members: list[list[str]] = []
    stale: list[int] = []
    ended: list[float] = []
    for number in range(1, rounds + 1):
        came: dict[str, int] = {}
        while len(came) < size:
            busy = {name for _, name, _ in work} | came.keys()
            for name in CLIENTS.values():
                if name not in busy:
                    heapq.heappush(work, (now + SECONDS[name], name, number))
            now, name, asked = heapq.heappop(work)
            came[name] = number - asked
        weights = {name: min(items_of(name), 6) for name in came}
        total = torch.zeros(BASIS.numbers, dtype=torch.double)
        for name, tau in came.items():
            share = weights[name] / sum(weights.values()) / math.sqrt(1 + tau)
            total += share * drawn(name, number - tau).double()
        theta = (theta.double() + total).float()
        members.append(sorted(came))
        stale += came.values()
        ended.append(now)
    return theta, members, stale, ended


def test_a_buffer_of_all_clients_is_a_round_that_waits(tmp_path: Path, clock: FakeClock):
    waiting = train(tmp_path / "waiting", clock)
    buffered = train(tmp_path / "buffered", clock, buffer_size=5)
    assert torch.equal(numbers(buffered), numbers(waiting))
    assert buffered.history == waiting.history
    assert buffered.ledger.entries() == waiting.ledger.entries()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_stale_updates_count_as_the_formula_says(tmp_path: Path, clock: FakeClock, size: int):
    job = train(tmp_path, clock, buffer_size=size)
    expected, members, stale, _ = oracle(6, size)
    assert [report.admitted for report in job.history] == members
    torch.testing.assert_close(numbers(job), expected, rtol=0, atol=1e-6)
    assert max(stale) > 0, "some are"


def test_nobody_waits_for_the_slowest(tmp_path: Path, clock: FakeClock):
    train(tmp_path / "waiting", clock)
    waited = clock.now
    train(tmp_path / "buffered", clock, buffer_size=2)
    assert clock.now - waited < waited / 2


def test_who_says_nothing_is_given_up_and_asked_again_in_the_next_round(tmp_path: Path, clock: FakeClock):
    def lie(client: str, message: Message, values: dict[str, object]) -> dict[str, object] | None:
        return None if client == "dora" else values

    job = train(tmp_path, clock, lie, buffer_size=5, rounds=2, deadline_seconds=20.0)
    for report in job.history:
        assert report.dropped == {"dora": "no reply within 20 s"}
        assert report.admitted == ["anna", "ben", "carl", "emil"]
        assert report.asked == sorted(CLIENTS.values())


def test_a_bad_reply_costs_its_own_client_only(tmp_path: Path, clock: FakeClock):
    def lie(client: str, message: Message, values: dict[str, object]) -> dict[str, object]:
        return {"nonsense": 1} if client == "ben" else values

    job = train(tmp_path, clock, lie, buffer_size=4, rounds=2)
    assert [sorted(report.dropped) for report in job.history] == [["ben"], ["ben"]]
    assert [len(report.admitted) for report in job.history] == [4, 4]


def test_at_most_so_many_are_at_work_and_each_is_sent_the_basis_once(tmp_path: Path, clock: FakeClock):
    job = train(tmp_path, clock, buffer_size=2, clients_per_round=3)
    down = [entry for entry in job.ledger.entries() if entry.direction == "down"]
    assert isinstance(job.exchange.grid, SlowGrid)
    assert job.exchange.grid.most == 3
    assert sum(len(report.admitted) for report in job.history) == 12
    large = [entry.client for entry in down if entry.message > 500]
    assert len(large) == len(set(large)), "a basis"


def test_a_killed_run_goes_on_after_its_last_round(tmp_path: Path, clock: FakeClock):
    whole = train(tmp_path / "whole", clock, buffer_size=5)
    train(tmp_path / "killed", clock, buffer_size=5)
    for number in (5, 6):
        Checkpoints(tmp_path / "killed" / "checkpoints").path(number).unlink()
    resumed = train(tmp_path / "killed", clock, buffer_size=5)
    assert torch.equal(numbers(resumed), numbers(whole))
    assert [report.round for report in resumed.history] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"update-basis": "none", "transport-dtype": "float32"}, "update-basis=none"),
        ({"aggregation": "median"}, "aggregation=median"),
        ({"over-selection": 1.5}, "over-selection=1.5"),
        ({"secure-aggregation": "committee"}, "secure-aggregation=committee"),
        ({"target-epsilon": 2.0}, "target-epsilon=2"),
        ({"personal-basis": "update", "people-prior": True}, "people-prior"),
    ],
)
def test_what_needs_rounds_that_wait_is_refused(values: dict[str, object], name: str):
    given = {"update-basis": "random", "transport-dtype": "sign", **values}
    flat = JobSettings.own(read_preset("quickstart")) | given
    assert JobSettings.from_flat(flat).buffer_size == 0, "the control"
    with pytest.raises(InputError, match=f"buffer-size=2: {name} needs rounds that wait for their clients"):
        JobSettings.from_flat(flat | {"buffer-size": 2})


def test_a_buffer_is_no_larger_than_who_is_at_work():
    with pytest.raises(InputError, match="buffer-size=4 exceeds clients-per-round=3"):
        FederationSettings(rounds=1, buffer_size=4, clients_per_round=3)
    given = {"update-basis": "random", "buffer-size": 4, "clients-per-round": 3}
    with pytest.raises(InputError, match="buffer-size=4 exceeds clients-per-round=3"):
        JobSettings.from_flat(JobSettings.own(read_preset("quickstart")) | given)  # before anything is made

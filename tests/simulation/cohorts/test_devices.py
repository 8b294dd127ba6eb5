"""Rounds on devices that take their time, over scripted clients, against what a queue of events says."""

import statistics
import time
from pathlib import Path

import pytest
import torch
from flwr.app import Message, RecordDict
from tests.cloud.fake_grid import FakeGrid, federation
from tests.cloud.rounds.asynchronous.test_buffered import SECONDS, oracle
from tests.cloud.rounds.test_coordinate_rounds import BASIS, CLIENTS, Edges

from fedperfit.cloud.clients.clock import MACHINE
from fedperfit.cloud.rounds.federation import Federation
from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.protocol.messages.keys import CONTRIBUTE_TYPE, EVALUATE_TYPE
from fedperfit.simulation.cohorts.devices import DeviceGrid, SimulatedClock, on_devices

ROUNDS = 6


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError(f"slept for {seconds} s")

    monkeypatch.setattr(time, "sleep", sleep)


class PromptGrid(FakeGrid):
    """Replies are there as soon as somebody looks, in whatever order."""

    def pull_messages(self, message_ids):
        wanted = set(message_ids)
        there = [entry for entry in self.queue if entry[1] in wanted]
        self.queue = [entry for entry in self.queue if entry[1] not in wanted]
        return [reply for _, _, replies in there for reply in replies]


def on_known_devices(clock: SimulatedClock, edges: Edges) -> DeviceGrid:
    """A grid of the five clients, whose devices take the seconds of `SECONDS`."""
    grid = DeviceGrid(PromptGrid(CLIENTS, edges), clock, median=1.0, spread=0.0, seed=0)
    grid.seconds.update({node: SECONDS[name] for node, name in CLIENTS.items()})
    return grid


def train(folder: Path, edges: Edges | None = None, **changes: object) -> Federation:
    values: dict[str, object] = {"rounds": ROUNDS, "deadline_seconds": 50.0, **changes}
    clock = SimulatedClock()
    grid = on_known_devices(clock, edges or Edges())
    job = federation(folder, grid, CLIENTS, basis=BASIS, clock=clock, **values)
    job.train(CLIENTS.values(), lambda report: None)
    return job


def ends(job: Federation) -> list[float | None]:
    return [report.seconds for report in job.history]


def test_a_round_that_waits_takes_as_long_as_its_slowest_client(tmp_path: Path):
    assert ends(train(tmp_path)) == pytest.approx([9.1 * number for number in range(1, ROUNDS + 1)])


def test_a_round_that_asks_more_takes_as_long_as_the_last_that_it_wants(tmp_path: Path):
    job = train(tmp_path, clients_per_round=3, over_selection=2.0)
    assert [report.admitted for report in job.history] == [["anna", "ben", "carl"]] * ROUNDS
    assert ends(job) == pytest.approx([2.5 * number for number in range(1, ROUNDS + 1)])


def test_a_round_takes_no_longer_than_its_deadline(tmp_path: Path):
    job = train(tmp_path, deadline_seconds=5.0)
    assert all(report.dropped == {"dora": "no reply within 5 s"} for report in job.history)
    assert ends(job) == pytest.approx([5.0 * number for number in range(1, ROUNDS + 1)])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_a_buffer_is_full_when_the_queue_of_events_says(tmp_path: Path, size: int):
    job = train(tmp_path, buffer_size=size)
    theta, members, _, ended = oracle(ROUNDS, size)
    assert [report.admitted for report in job.history] == members
    assert ends(job) == ended
    checkpoint = job.checkpoints.latest()
    assert checkpoint is not None
    torch.testing.assert_close(torch.tensor(checkpoint.numbers), theta, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [0, 2])
def test_a_killed_run_goes_on_at_the_time_at_which_its_last_round_ended(tmp_path: Path, size: int):
    edges = Edges()
    whole = train(tmp_path, edges, buffer_size=size)
    for number in (4, 5, 6):
        whole.checkpoints.path(number).unlink()
    resumed = train(tmp_path, edges, buffer_size=size)
    assert ends(resumed)[:3] == ends(whole)[:3]
    assert ends(resumed) == sorted(set(ends(resumed)))
    if not size:
        assert ends(resumed) == ends(whole)


def test_every_training_begins_at_zero(tmp_path: Path):
    clock = SimulatedClock()
    clock.appoint(3.0)
    clock.wait(0.1, 10.0)
    assert clock.simulated == 3.0
    clock.appoint(4.0)
    clock.start(0.0)
    clock.wait(0.1, 10.0)
    assert clock.simulated == 10.0, "what was appointed before is over"


def test_only_updates_take_time():
    clock = SimulatedClock()
    grid = DeviceGrid(
        PromptGrid({1: "anna"}, lambda client, message: [Message(message.content, reply_to=message)]),
        clock,
        median=7.0,
        spread=0.0,
        seed=0,
    )
    (question,) = grid.push_messages([Message(RecordDict(), 1, EVALUATE_TYPE)])
    (update,) = grid.push_messages([Message(RecordDict(), 1, CONTRIBUTE_TYPE)])
    assert next(iter(grid.pull_messages([question, update]))).metadata.reply_to_message_id == question
    clock.wait(0.1, 6.5)
    assert not list(grid.pull_messages([update]))
    clock.wait(0.1, 60.0)
    assert clock.now() == 7.0
    assert len(list(grid.pull_messages([update]))) == 1


def test_devices_are_drawn_by_the_seed_around_the_median():
    grid = PromptGrid({node: f"c{node}" for node in range(2001)}, Edges())
    first, again, other = (
        DeviceGrid(grid, SimulatedClock(), median=60.0, spread=1.0, seed=seed).seconds for seed in (1, 1, 2)
    )
    assert first == again != other
    assert statistics.median(first.values()) == pytest.approx(60.0, rel=0.1)
    assert statistics.quantiles(first.values(), n=10)[-1] == pytest.approx(3.6 * 60.0, rel=0.15)


def test_without_devices_nothing_is_simulated_and_no_report_says_so():
    grid = PromptGrid(CLIENTS, Edges())
    assert on_devices(grid, median=0.0, spread=1.0, seed=0) == (grid, MACHINE)
    told = {"round": 1, "asked": [], "admitted": [], "dropped": {}, "skipped": True}
    told |= {"items": 0, "loss": None, "bytes_down": 0, "bytes_up": 0}
    assert RoundReport.from_json(told).to_json() == told
    assert RoundReport.from_json(told | {"seconds": 3.5}).to_json() == told | {"seconds": 3.5}

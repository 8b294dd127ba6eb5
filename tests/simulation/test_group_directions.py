"""A hundred users of the world find the group's directions together, by Flower's messages, and are served."""

import logging
from pathlib import Path

import pytest
import torch
from tests.leaks import found_in, rows_coded, windows
from tests.simulation.local_grid import LocalGrid
from tests.simulation.small_run import prepare, small_settings
from tests.simulation.watched_grid import Watched

from fedperfit.cloud.job.directions import EVALUATIONS, RESTARTS
from fedperfit.cloud.job.job import Job
from fedperfit.edge.agent.history import read_history
from fedperfit.edge.chameleon.contribution import Memory
from fedperfit.edge.chameleon.identify import States
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.messages.settings import FEWEST_PAIRS
from fedperfit.protocol.shift.directions import Directions
from fedperfit.protocol.shift.probe import Frame, Moments, evaluate, minimise
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation import client_app
from fedperfit.simulation.cohorts.grid import CohortGrid
from fedperfit.simulation.run.clients import OTHERS, ROSTER
from fedperfit.simulation.run.report import write_report
from fedperfit.simulation.run.study import Study
from fedperfit.simulation.run.summary import write_metrics

pytestmark = pytest.mark.slow  # for what its tests share, whichever comes first

USERS = 100
_SEEN = 12
"""Users whose every message is searched for every pair of theirs."""


def quiet(event: str, values: dict[str, object]) -> None:
    pass


class Searched:
    """A finished search, with what its clients kept in memory."""

    def __init__(self, folder: Path) -> None:
        settings = small_settings(
            task="LaMP_4", others=USERS, targets=1, new=1, world_history=12, directions=True
        )
        clients = prepare(folder, settings)
        self.folder, self.grid = folder, Watched(folder, clients)
        job = Job(self.grid, settings, folder, quiet)
        job.connect(clients, 60)
        roster = read_json(folder / ROSTER)
        names = [client for client, about in roster.items() if about["group"] == OTHERS]
        found = job.directions("directions", names)
        assert found is not None
        self.found, self.seed = found, settings.seed
        self.memory: Memory = client_app._memory(folder / "clients")
        self.places = {client: number for number, client in enumerate(roster) if client in names}
        self.ledger = Ledger(folder / "ledger" / "directions.jsonl").entries()

    @property
    def states(self) -> dict[str, States]:
        """States of the clients that took part."""
        every = {client: self.memory.states[client][1] for client in self.places}
        return {client: one for client, one in every.items() if len(one) >= FEWEST_PAIRS}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return Searched(tmp_path_factory.mktemp("group") / "run")


def pooled(people: dict[str, States], seed: int) -> Directions:
    """The directions of all pairs in one place: all p's first singular vector, and their probe."""
    joined = States.joined(list(people.values()))
    frame = Frame.of([Moments.of(one.personalized, one.neutral) for one in people.values()])
    p, n = frame.coordinates(joined.personalized, joined.neutral)

    def everyone(probes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, gradient = evaluate(p, n, probes)
        return loss / len(joined), gradient / len(joined)

    probe = minimise(everyone, frame, seed, restarts=RESTARTS, evaluations=EVALUATIONS)
    layers = sorted(probe.loss.argsort(stable=True)[:2].tolist())
    first = torch.linalg.svd(joined.personalized.double(), full_matrices=False).Vh[:, 0].float()
    return Directions.of(layers, first[layers], probe.theta[layers])


def test_federated_directions_are_those_of_the_pooled_pairs(searched):
    expected = pooled(searched.states, searched.seed)
    assert searched.found.layers == expected.layers
    for side in ("personalized", "neutral"):
        cosines = (getattr(searched.found, side) * getattr(expected, side)).sum(1).abs()
        print(side, cosines.tolist())
        assert cosines.min() > 0.999


def test_fewer_bytes_travel_than_the_pairs_have(searched):
    took = searched.states
    assert len(took) > 0.9 * USERS
    sums = {"moments": 0.0, "view and first probes": 0.0, "later probes": 0.0, "pairs": 0.0}
    for client, states in took.items():
        mine = [entry for entry in searched.ledger if entry.client == client]
        travelled = sum(entry.message for entry in mine)
        layers, pairs, size = states.personalized.shape
        hidden = 2 * pairs * layers * size * 4
        if pairs == 10:
            assert travelled < hidden
        for name, rounds in (("moments", {0}), ("view and first probes", {1})):
            sums[name] += sum(entry.message for entry in mine if entry.round in rounds)
        sums["later probes"] += sum(entry.message for entry in mine if entry.round > 1)
        sums["pairs"] += hidden
    print({name: round(total / len(took)) for name, total in sums.items()})
    assert sum(total for name, total in sums.items() if name != "pairs") < sums["pairs"]
    assert all(entry.phase == "directions" for entry in searched.ledger)


def test_no_pair_text_or_hidden_state_is_in_any_message(searched):
    nodes = list(searched.grid.get_node_ids())
    everything = b"".join(one for said in searched.grid.seen.values() for one in said)
    for client in list(searched.states)[:_SEEN]:
        place = searched.places[client]
        recorded = b"".join(searched.grid.seen[nodes[place]])
        assert len(recorded) > 30_000
        states = searched.states[client]
        secret = {}
        for side in ("personalized", "neutral"):
            secret |= rows_coded(side, getattr(states, side).flatten(0, 1))
        _, p, n = searched.memory.coordinates[client]
        secret |= rows_coded("coordinates", [*p.flatten(0, 1), *n.flatten(0, 1)])
        assert found_in(recorded, secret) == set()
        row = states.neutral[5, 2]
        leak = recorded + rows_coded("", [row])[" 0 fp16"]
        assert found_in(leak, secret) == {f"neutral {5 * len(states) + 2} fp16"}

        history = read_history(searched.folder / "clients" / str(place))
        texts = {f"item {number}": str(value).encode() for number, value in texts_of(history.items)}
        assert sum(len(list(windows(text))) for text in texts.values()) > 20
        assert found_in(everything, texts) == set()
        planted = everything + next(iter(texts.values()))
        assert "item 0" in found_in(planted, texts)


def texts_of(items: list[dict[str, str]]) -> list[tuple[int, str]]:
    return list(enumerate(text for item in items for text in item.values() if len(text) >= 24))


def test_a_study_with_directions_releases_and_evaluates_them(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    settings = small_settings(
        task="LaMP_4", directions=True, world_history=10, history_lengths=[], collective_sizes=[]
    )
    folder = tmp_path / "run"
    clients = prepare(folder, settings)
    Study(CohortGrid(folder, clients), settings, folder, quiet).run()
    release = read_release(folder / FILE_NAME)
    assert release.directions is not None
    assert len(release.directions.layers) == settings.edited_layers
    found = Directions.from_bytes((folder / "directions.safetensors").read_bytes())
    torch.testing.assert_close(release.directions.neutral, found.neutral)
    assert len(read_json(folder / "results" / "evaluate-directions.json")) == 2
    write_metrics(folder)
    stages = read_json(folder / "metrics.json")["stages"]
    assert list(stages) == ["base", "collective", "directions", "personal"]
    assert "directions" in read_json(folder / "metrics.json")["communication"]["phases"]
    assert "collective + group" in write_report(folder).read_text()


def test_client_by_client_they_are_the_same(tmp_path):
    settings = small_settings(
        task="LaMP_4", directions=True, world_history=10, history_lengths=[], collective_sizes=[]
    )
    found = []
    for name, grid in (("alone", LocalGrid), ("together", CohortGrid)):
        clients = prepare(tmp_path / name, settings)
        job = Job(grid(tmp_path / name, clients), settings, tmp_path / name, quiet)
        job.connect(clients, 60)
        found.append(job.directions("directions", ["others-0", "others-1", "others-2"]))
    assert found[0].to_bytes() == found[1].to_bytes()

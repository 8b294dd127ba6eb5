"""Layers, ranks and the start of a run from what its clients tell, against the same pairs in one place."""

import json
import logging
from pathlib import Path

import pytest
import torch
from tests.leaks import found_in, rows_coded
from tests.simulation.small_run import prepare, small_settings
from tests.simulation.watched_grid import Watched

from fedperfit.cloud.job.job import Job
from fedperfit.cloud.job.settings import SELECTION, read_settled
from fedperfit.edge.agent.history import read_history
from fedperfit.edge.engine.layer_gradients import layer_gradient
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.model.base_model import EMBEDDED, load
from fedperfit.protocol.shift.packing import unpack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.selection import (
    PERSONAL_SHARE,
    STEP,
    LayerGradient,
    relevance,
    select_layers,
    warm_start,
)
from fedperfit.protocol.shift.shift_file import read_shift_file
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.tasks import Pair, PromptForm
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation import client_app, stored_models
from fedperfit.simulation.client_app import CLIENTS
from fedperfit.simulation.cohorts.grid import CohortGrid
from fedperfit.simulation.run.job import run_cohorts
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.run.study import Study

pytestmark = pytest.mark.slow  # for what its tests share, whichever comes first

OTHERS = 4
LATEST = 5
AT = Positions.parse("l7")


def quiet(event: str, values: dict[str, object]) -> None:
    pass


def settings(**changes: object) -> RunSettings:
    values = {
        "layers": "auto",
        "collective_rank": "auto",
        "personal_rank": "auto",
        "warm_start": True,
        "others": OTHERS,
        "collective_max_items": LATEST,
        "history_lengths": [],
        "collective_sizes": [],
    }
    return small_settings(**values | changes)


def pairs(folder: Path) -> list[list[Pair]]:
    """Read the pairs of each of the others, who are the first clients."""
    histories = [read_history(folder / CLIENTS / str(number)) for number in range(OTHERS)]
    return [history.pairs(PromptForm.LAMP, LATEST) for history in histories]


class Chosen:
    """A job after its choice and the start of its training."""

    def __init__(self, folder: Path) -> None:
        self.folder, made = folder, settings()
        clients = prepare(folder, made)
        self.grid = Watched(folder, clients)
        self.job = Job(self.grid, made, folder, quiet)
        self.job.connect(clients, 60)
        names = [f"others-{number}" for number in range(OTHERS)]
        self.job.choose(names)
        self.job.train("train", names)
        self.base = load(EMBEDDED, device="cpu", dtype="float32")
        self.layer_gradients = [layer_gradient(self.base, some, AT, batch_size=1) for some in pairs(folder)]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Chosen:
    return Chosen(tmp_path_factory.mktemp("places") / "run")


def test_the_choice_is_that_of_the_pairs_in_one_place(chosen):
    found = read_json(chosen.folder / SELECTION)
    expected, own = (
        select_layers(chosen.layer_gradients),
        select_layers(chosen.layer_gradients, share=PERSONAL_SHARE),
    )
    assert found["settings"] == {
        "layers": list(expected.layers),
        "layers-of": 8,
        "collective-rank": expected.rank,
        "personal-rank": own.rank,
    }
    torch.testing.assert_close(
        torch.tensor(found["relevance"]), relevance(chosen.layer_gradients), rtol=1e-5, atol=1e-5
    )
    assert found["clients"] == OTHERS
    shape = chosen.job.header.shape
    assert (shape.layers, shape.rank) == (expected.layers, expected.rank)


def test_the_start_is_that_of_the_pairs_in_one_place(chosen):
    packed, _, _ = read_shift_file(
        chosen.folder / "checkpoints" / "train" / "round-0000.safetensors", "checkpoint"
    )
    start, header = unpack(packed)
    expected = warm_start(chosen.layer_gradients, header.shape, STEP, seed=0)
    for name in ("R", "W", "b"):
        torch.testing.assert_close(getattr(start, name), getattr(expected, name), rtol=1e-5, atol=1e-5)


def test_the_clients_gradients_are_together_that_of_all_pairs(chosen):
    whole = layer_gradient(chosen.base, [pair for some in pairs(chosen.folder) for pair in some], AT)
    told: list[LayerGradient] = chosen.job._layer_gradients([f"others-{number}" for number in range(OTHERS)])
    weights = torch.tensor([float(one.pairs) for one in told])
    mean = (weights[:, None, None] * torch.stack([one.gradient for one in told])).sum(0) / weights.sum()
    torch.testing.assert_close(mean, whole.gradient, rtol=1e-4, atol=1e-6)


def test_clients_are_asked_once_and_tell_of_no_single_pair(chosen):
    entries = Ledger(chosen.folder / "ledger" / "pulls.jsonl").entries()
    assert len(entries) == 2 * OTHERS
    recorded = b"".join(one for said in chosen.grid.seen.values() for one in said)
    secret = {}
    for client, some in enumerate(pairs(chosen.folder)):
        for number, pair in enumerate(some):
            secret |= rows_coded(f"{client} {number}", layer_gradient(chosen.base, [pair], AT).gradient)
            secret[f"{client} {number} text"] = pair.prompt[-48:].encode()
    assert found_in(recorded, secret) == set()
    leak = rows_coded("", [layer_gradient(chosen.base, pairs(chosen.folder)[1][2:3], AT).gradient[6]])
    assert found_in(recorded + leak[" 0 fp32"], secret) == {"1 2 6 fp32"}


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("after", [2, OTHERS + 2])
def test_a_killed_run_resumes_to_the_same_places_and_shift(after, tmp_path, monkeypatch):
    """Killed in the first or second message to the others: while they are asked, and in round 1."""
    made = settings(targets=1, new=1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    clients = prepare(whole, made)
    prepare(killed, made)

    def run(folder: Path) -> None:
        stored_models._copies.cache_clear()
        Study(CohortGrid(folder, clients), made, folder, quiet).run()

    run(whole)
    original, count = client_app._agent, 0

    def dying(context):
        nonlocal count
        count += 1
        if count == clients + after:
            raise Killed
        return original(context)

    with monkeypatch.context() as patched:
        patched.setattr(client_app, "_agent", dying)
        with pytest.raises(Killed):
            run(killed)
    was = (killed / SELECTION).read_bytes() if (killed / SELECTION).exists() else None
    assert (was is None) == (after <= OTHERS)
    run(killed)
    assert was in (None, (killed / SELECTION).read_bytes())
    assert read_json(killed / SELECTION)["settings"] == read_json(whole / SELECTION)["settings"]
    assert read_release(killed / FILE_NAME).packed == read_release(whole / FILE_NAME).packed


def test_the_report_says_what_was_chosen(tmp_path):
    made = settings(layers=[3, 4], warm_start=False)
    prepare(tmp_path, made)
    events: list[dict[str, object]] = []
    run_cohorts(tmp_path, events.append)
    (told,) = [event for event in events if event["event"] == "chosen"]
    found = read_json(tmp_path / SELECTION)
    assert told["settings"] == found["settings"]
    assert set(found["settings"]) == {"collective-rank", "personal-rank"}
    settled = RunSettings.from_flat(read_settled(tmp_path))
    release = read_release(tmp_path / FILE_NAME)
    assert release.header.shape == settled.shape(load(EMBEDDED, device="cpu").card)
    page = (tmp_path / "report.html").read_text()
    assert "Chosen in this run" in page
    assert f"<code>personal-rank</code> {found['settings']['personal-rank']}" in page
    sent = read_json(tmp_path / "metrics.json")["communication"]
    own = found["settings"]["personal-rank"]
    assert sent["personal-parameters"] == 2 * (2 * own * 192 + own)
    assert "pulls" in sent["phases"]
    assert json.loads((tmp_path / "settings.json").read_text())["personal-rank"] == "auto"


def test_one_client_is_no_group(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    made = settings(others=2)
    clients = prepare(tmp_path, made)
    history = tmp_path / CLIENTS / "0"
    for name in ("history.jsonl", "answered.jsonl"):
        (history / name).write_text("")
    with pytest.raises(InputError, match="pulls: 1 client sent theirs, at least 2 are needed"):
        Study(CohortGrid(tmp_path, clients), made, tmp_path, quiet).run()
    assert any("dropped others-0: error reply" in m and "(TooFewPairs)" in m for m in caplog.messages)
    assert not (tmp_path / SELECTION).exists()

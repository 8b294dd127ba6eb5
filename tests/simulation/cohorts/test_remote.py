"""Cohorts on a cluster of two nodes against the same cohorts in this process; deaths change nothing."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from flwr.app import Message
from ray.cluster_utils import Cluster
from tests.simulation.cluster.ray_cluster import STORE_BYTES, two_nodes
from tests.simulation.compare.small_comparison import tiny_base
from tests.simulation.small_run import prepare, small_settings

from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation import stored_models
from fedperfit.simulation.client_app import CLIENTS, REFUSALS
from fedperfit.simulation.cluster.cluster import ClusterRequest
from fedperfit.simulation.cohorts.grid import CohortGrid, Request, Respond, respond_here
from fedperfit.simulation.cohorts.remote import dealt, remote_cohorts, shares_of
from fedperfit.simulation.run.settings import RunSettings
from fedperfit.simulation.run.study import Study

pytestmark = pytest.mark.slow  # for the cluster that its tests share

BROKEN = "4"
"""A target without questions."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with two_nodes() as made:
        yield made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker with one core
    yield tmp_path_factory.mktemp("runs")
    torch.set_num_threads(threads)


def prepared(folder: Path) -> tuple[RunSettings, int]:
    """Settings and folder of a run of seven clients, of whom one is broken."""
    settings = small_settings(base_model=tiny_base(), clients_per_round=3)
    clients = prepare(folder, settings)
    (folder / CLIENTS / BROKEN / "questions.jsonl").write_text("")
    return settings, clients


def on_cluster(folder: Path, nodes: Cluster, on_event: Callable[[str], None] = lambda event: None) -> Path:
    settings, clients = prepared(folder)
    with remote_cohorts(folder, clients, ClusterRequest(nodes.address)) as respond:
        grid = CohortGrid(folder, clients, respond)
        Study(grid, settings, folder, lambda event, values: on_event(event)).run()
    return folder


def in_two(clients: Path) -> Respond:
    """Two cohorts in this process, one after the other."""

    def respond(requests: Sequence[Request]) -> Iterator[Message]:
        asked = {
            int(context.node_config["partition-id"]): (message, context) for message, context in requests
        }
        for share in shares_of({n: message for n, (message, _) in asked.items()}, clients, 2):
            yield from respond_here([asked[n] for n in asked if n in share])

    return respond


@pytest.fixture(scope="module")
def here(root: Path) -> Path:
    folder = root / "here"
    settings, clients = prepared(folder)
    stored_models._copies.cache_clear()
    grid = CohortGrid(folder, clients, in_two(folder / CLIENTS))
    Study(grid, settings, folder, lambda event, values: None).run()
    return folder


def said(folder: Path) -> dict[str, Any]:
    """Every number and name that a run comes to, but for times and for what is sealed."""
    told: dict[str, Any] = {}
    for path in sorted([*folder.glob("results/*"), folder / "rounds.json"]):
        told |= leaves(path.name, json.loads(path.read_text()))
    for path in sorted(folder.glob("ledger/*")):
        told |= leaves(path.name, [json.loads(line) for line in path.read_text().splitlines()])
    shifts: dict[str, Any] = {"release": read_release(folder / FILE_NAME).shift}
    for client in sorted((folder / CLIENTS).glob("[0-9]*")):
        vault = Vault(client / "vault")
        for slot in vault.slots():
            about, shifts[f"{client.name} {slot}"] = vault.open(slot)
            told |= leaves(f"{client.name} {slot}", [about.fit_record.items, about.writes])
    for name, shift in shifts.items():
        told |= leaves(
            f"{name} numbers", [getattr(shift, part).flatten().tolist() for part in ("R", "W", "b")]
        )
    return told


def leaves(name: str, value: Any) -> dict[str, Any]:
    """The numbers and texts in nested JSON values, by their paths."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: leaf for key, each in inner for path, leaf in leaves(f"{name}/{key}", each).items()}
    return {name: value}


def agree(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two runs came to the same up to rounding: it depends on what a cohort had prepared before."""
    return ours.keys() == theirs.keys() and all(
        theirs[name] == (pytest.approx(value, rel=1e-3, abs=1e-5) if isinstance(value, float) else value)
        for name, value in ours.items()
    )


def test_a_run_on_two_nodes_is_the_run_in_this_process(root: Path, here: Path, nodes: Cluster) -> None:
    there = on_cluster(root / "there", nodes)
    assert agree(said(there), said(here))
    kept = [json.loads(line) for line in (there / REFUSALS).read_text().splitlines()]
    assert {line["client"] for line in kept} == {BROKEN}


def test_an_actor_and_a_node_that_die_cost_their_cohort_a_retry(
    root: Path, here: Path, nodes: Cluster
) -> None:
    replies, killed = 0, 0

    def strike(event: str) -> None:
        nonlocal replies, killed
        replies += event == "reply"
        if event == "reply" and replies == 4:  # the first reply of round 2
            killed = kill_a_worker()
        if event == "reply" and replies == 8:
            (second,) = [node for node in nodes.list_all_nodes() if node is not nodes.head_node]
            nodes.remove_node(second, allow_graceful=False)
            nodes.add_node(num_cpus=1, object_store_memory=STORE_BYTES)

    struck = on_cluster(root / "struck", nodes, strike)
    assert killed
    assert agree(said(struck), said(here))


def kill_a_worker() -> int:
    """Kill a worker, one that has work where there is any, and return its number."""
    named = {process: " ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)}
    workers = [process for process, name in named.items() if name.startswith("ray::_Worker")]
    workers.sort(key=lambda process: "_Worker.do" not in named[process])
    workers[0].kill()
    return workers[0].pid


def test_clients_are_dealt_so_that_cohorts_end_together() -> None:
    assert dealt({0: 9, 1: 5, 2: 4, 3: 1}, 2) == [{0}, {1, 2, 3}]
    assert dealt(dict.fromkeys(range(6), 64), 3) == [{0, 3}, {1, 4}, {2, 5}]
    assert dealt({4: 64, 0: 64, 5: 64}, 3) == [{0}, {4}, {5}], "each where it is in other rounds"
    assert dealt({1: 8}, 2) == [set(), {1}]


def test_in_rounds_a_client_leaves_the_cohort_that_has_it_prepared_only_to_end_sooner() -> None:
    assert dealt({0: 9, 2: 8, 4: 8, 1: 9}, 2, away=2) == [{0, 2, 4}, {1}], "elsewhere as late as at home"
    assert dealt({0: 9, 2: 8, 4: 8}, 2, away=2) == [{0, 4}, {2}]

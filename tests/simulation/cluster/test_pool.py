"""Units of work on workers of a cluster: order, deaths, and what is wrong."""

import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import ray
from ray.cluster_utils import Cluster
from tests.simulation.cluster.ray_cluster import two_nodes
from typer.testing import CliRunner

from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.system.processes import wait_until
from fedperfit.simulation.cli import app
from fedperfit.simulation.cluster import cluster as on_ray
from fedperfit.simulation.cluster import head
from fedperfit.simulation.cluster import pool as pools
from fedperfit.simulation.cluster.cluster import ClusterRequest, Placement, cluster, placement
from fedperfit.simulation.cluster.pool import Pool
from fedperfit.simulation.cluster.store import Store

pytestmark = pytest.mark.slow  # for the cluster that its tests share


class Words:
    """Yields the letters of a word; some words end the worker, or are wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def do(self, payload: Any) -> Iterator[Any]:
        if payload == "wrong":
            raise InputError("wrong word")
        if payload == "odd":
            raise ValueError("two\nlines")
        for letter in payload:
            if letter == "!":
                os.kill(os.getpid(), signal.SIGKILL)
            yield letter, os.getpid()
            if letter == "~":
                time.sleep(1)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with two_nodes() as made:
        yield made


@pytest.fixture(scope="module")
def pool(nodes: Cluster) -> Iterator[Pool[str]]:
    with cluster(ClusterRequest(nodes.address)) as placed:
        assert placed == Placement(2, 1.0, 0.0)
        yield Pool[str](placed, Words)


def letters(parts: Iterator[tuple[str, Any]]) -> dict[str, str]:
    told: dict[str, str] = {}
    for unit, (letter, _) in parts:
        told[unit] = told.get(unit, "") + letter
    return told


def test_every_unit_is_done_by_the_worker_it_is_meant_for(pool: Pool[str]) -> None:
    units = ["one", "two", "three", "four"]
    homes = dict(zip(units, (0, 1, 1, 0), strict=True))
    ray.wait([*pool._starting], num_returns=len(pool._starting), timeout=200)  # both are there
    done_by: dict[int, set[int]] = {0: set(), 1: set()}
    for unit, (_, process) in pool.work(units, str, home=homes.get):
        done_by[homes[unit]].add(process)
    assert [len(processes) for processes in done_by.values()] == [1, 1]
    assert done_by[0] != done_by[1]


def test_a_worker_that_ends_what_is_dropped_still_gets_the_unit_meant_for_it(pool: Pool[str]) -> None:
    homes = {"~": 0, "one": 0, "two": 1}
    done_by = []
    for _ in range(2):
        next(pool.work(["~"], str, home=homes.get))  # the rest of it is dropped
        parts = pool.work(["one", "two"], str, home=homes.get)
        done_by.append({unit: process for unit, (_, process) in parts})
    assert done_by[0] == done_by[1]
    assert len(set(done_by[0].values())) == 2, "the other one, which was free, took its own first"


def test_units_wait_for_those_they_need(pool: Pool[str]) -> None:
    order = []
    for unit, _ in pool.work(["c", "b", "a"], str, needs=lambda unit: {"c": ["b"], "b": ["a"]}.get(unit, [])):
        order.append(unit)
    assert order == ["a", "b", "c"]


def test_what_one_worker_makes_another_makes_only_where_nothing_else_is_left() -> None:
    pool = Pool[str].__new__(Pool)
    actor = SimpleNamespace(do=SimpleNamespace(options=lambda **_: SimpleNamespace(remote=str.upper)))
    pool._workers, pool._idle, pool._absent = [actor] * 3, {0, 1}, set()
    pool._starting, pool._busy = {}, {}
    left = ["a1", "a2", "a3", "b1"]

    def give_out() -> None:
        pool._give_out(left, lambda unit: unit, lambda unit: (), lambda unit: unit[0], lambda unit: None)

    give_out()
    assert (left, [*pool._busy]) == (["a2", "a3"], ["A1", "B1"])
    pool._idle.add(2)
    give_out()
    assert (left, [*pool._busy]) == (["a3"], ["A1", "B1", "A2"])


def test_a_unit_whose_worker_dies_is_done_by_another(pool: Pool[str]) -> None:
    tries = iter(["tw!", "two"])
    told = letters(pool.work(["one", "two"], lambda unit: next(tries) if unit == "two" else unit))
    assert told["one"] == "one"
    before = told["two"].removesuffix("two")
    assert told["two"].endswith("two"), "what came before comes again"
    assert "tw".startswith(before), "and nothing else does; the death may swallow what was on its way"


def test_a_unit_that_ends_every_worker_ends_the_run_in_one_line(pool: Pool[str]) -> None:
    with pytest.raises(RunFailed, match=r"3 processes died over it \(.*\); --resume"):
        letters(pool.work(["!"], str))
    assert letters(pool.work(["next"], str)) == {"next": "next"}


@pytest.mark.parametrize(
    ("unit", "kind", "said"),
    [("wrong", InputError, "wrong: wrong word"), ("odd", RunFailed, "odd: ValueError: two lines")],
)
def test_what_is_wrong_is_told_in_one_line(
    pool: Pool[str], unit: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=f"^{said}$"):
        letters(pool.work([unit], str))


def test_work_that_is_dropped_does_not_come_back(pool: Pool[str]) -> None:
    dropped = pool.work(["one", "two", "three"], str)
    next(dropped)
    assert letters(pool.work(["four"], str)) == {"four": "four"}
    assert list(dropped) == []


def test_who_waits_for_room_is_told(
    pool: Pool[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pools, "_PATIENCE_SECONDS", 0.5)
    second = Pool[str](Placement(1, 1.0, 0.0), Words)
    waiting = threading.Thread(target=second._first_answer)
    with caplog.at_level(logging.WARNING):
        waiting.start()
        assert wait_until(lambda: bool(caplog.messages), 60)
    assert waiting.is_alive()
    ray.kill(second._workers[0])
    waiting.join(60)
    (said,) = caplog.messages
    assert said.endswith("0 of its 2 CPUs are free, and each takes 1; waiting for room")


def test_a_store_that_is_full_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(content: object) -> None:
        raise ray.exceptions.OutOfDiskError("Local disk is full\nThe object cannot be created")

    monkeypatch.setattr(ray, "put", full)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFailed, match=r"^the cluster's object store is full: [^\n]*; --resume continues$"):
        Store().reference(tmp_path / "file")


@pytest.mark.parametrize(
    ("asked", "nodes", "placed"),
    [
        (ClusterRequest(), [{"CPU": 4.0}, {"CPU": 3.0}], Placement(7, 1.0, 0.0)),
        (ClusterRequest(cpus=2.0), [{"CPU": 4.0}, {"CPU": 3.0}], Placement(3, 2.0, 0.0)),
        (ClusterRequest(), [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0}], Placement(2, 1.0, 1.0)),
        (ClusterRequest(gpus=0.5), [{"CPU": 8.0, "GPU": 2.0}], Placement(4, 1.0, 0.5)),
        (ClusterRequest(gpus=0.0), [{"CPU": 8.0, "GPU": 2.0}], Placement(8, 1.0, 0.0)),
        (ClusterRequest(workers=5), [{"CPU": 2.0}], Placement(5, 0.4, 0.0)),
        (ClusterRequest("auto", workers=5), [{"CPU": 2.0}], Placement(5, 1.0, 0.0)),
        (ClusterRequest(workers=3), [{"CPU": 3.0, "GPU": 1.0}], Placement(3, 1.0, 1 / 3)),
    ],
)
def test_as_many_workers_as_there_is_room_for(
    asked: ClusterRequest, nodes: list[dict[str, float]], placed: Placement
) -> None:
    assert placement(asked, nodes) == placed


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (ClusterRequest(workers=2, gpus=1.0), "2 workers of 1 GPUs each: the cluster has 4 CPUs and 1 GPUs"),
        (ClusterRequest(gpus=2.0), "none with room for a worker of 1 CPUs and 2 GPUs"),
        (ClusterRequest(workers=1_000), "1000 workers: 0.004 CPUs for each of them, 0.01 are the least"),
        (ClusterRequest(cpus=math.nan), "^nan CPUs for each of them"),
        (ClusterRequest(gpus=math.nan), "nan GPUs for each worker: expected a number"),
        (ClusterRequest(cpus=8.0), "none with room for a worker of 8 CPUs and 1 GPUs"),
    ],
)
def test_what_has_no_room_is_told(asked: ClusterRequest, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        placement(asked, [{"CPU": 4.0, "GPU": 1.0}])


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_that_nobody_answers_at_is_told_in_one_line(address: str) -> None:
    with (
        pytest.raises(InputError, match=f"ray-address={address}") as caught,
        cluster(ClusterRequest(address)),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.fixture(params=["silence", "http", "grpc"])
def other_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of a server that is no Ray cluster."""
    if request.param == "grpc":
        server = grpc.server(ThreadPoolExecutor(1))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None)
    elif request.param == "http":
        with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as web:
            threading.Thread(target=web.serve_forever, daemon=True).start()
            yield f"127.0.0.1:{web.server_port}"
            web.shutdown()
    else:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"127.0.0.1:{silent.getsockname()[1]}"


def test_a_server_that_is_no_cluster_is_told_before_anything_is_made(
    other_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "_ANSWER_SECONDS", 1.0)
    words = [
        "simulate",
        "--backend",
        "ray",
        "--ray-address",
        other_server,
        "--run-dir",
        str(tmp_path / "run"),
    ]
    told = CliRunner().invoke(app, words)
    said = f"ray-address={other_server}: what answers there is no head of a Ray cluster"
    assert str(told.exception) == said
    assert not (tmp_path / "run").exists()


def test_a_second_interrupt_does_not_keep_a_cluster_from_being_stopped(
    nodes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    def shutdown() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        ended.append(True)

    monkeypatch.setattr(ray, "init", lambda **options: None)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}])
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=nodes.address))
    monkeypatch.setattr(ray, "shutdown", shutdown)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), cluster(ClusterRequest(nodes.address)):
        raise KeyboardInterrupt
    assert ended == [True]
    assert signal.getsignal(signal.SIGINT) is handler


def test_auto_without_a_cluster_says_how_one_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_there(**options: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", none_there)
    with pytest.raises(InputError, match="ray-address=auto: no cluster runs on this machine"):
        on_ray._connect(ray, "auto", "")

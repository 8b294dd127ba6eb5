"""A cluster whose head is lost while it is used: one line, and an exit that says so."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from tests.simulation.cluster.ray_cluster import STORE_BYTES

from fedperfit.protocol.system.flower import QUIET
from fedperfit.simulation.cluster import head
from fedperfit.simulation.cluster.head import HeadLost, watched

_DRIVER = """
import sys, time
import typer
from pathlib import Path
from fedperfit.protocol.system.commands import run
from fedperfit.simulation.cluster.cluster import ClusterRequest
from fedperfit.simulation.cluster.pool import workers

class Doer:
    def do(self, payload):
        yield payload
        time.sleep(600)

app = typer.Typer()

@app.command()
def work(address: str, folder: Path):
    with workers(ClusterRequest(address), lambda folder: Doer(), folder) as pool:
        for _ in pool.work(["a"], lambda unit: unit):
            print("at work", flush=True)

run(app, "driver")
"""


def test_a_block_ends_soon_after_its_head_no_longer_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_LOOK_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with watched(address):
            time.sleep(0.5)
        with pytest.raises(ZeroDivisionError), watched(address):
            raise ZeroDivisionError
        begun = time.monotonic()
        server.close()
        with pytest.raises(HeadLost, match=f"at {address} no longer answers"), watched(address):
            time.sleep(60)
    assert time.monotonic() - begun < 30
    time.sleep(0.5)  # and nothing is interrupted after it


_DEAF = """
import signal, sys, time
from fedperfit.simulation.cluster import head

head._LOOK_SECONDS = head._LEAVE_SECONDS = 0.1
signal.signal(signal.SIGINT, lambda *_: None)
with head.watched(sys.argv[1]):
    time.sleep(600)
"""


def test_what_cannot_be_interrupted_ends_with_the_line_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, "-c", _DEAF, address], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the head of the Ray cluster at {address} no longer answers")


def test_a_command_whose_head_dies_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=node)
    address = nodes.address
    try:
        driver = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, address, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ),
            text=True,
        )
        assert driver.stdout is not None
        assert driver.stdout.readline() == "at work\n"
    finally:
        nodes.shutdown()
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert said.startswith(f"error: the head of the Ray cluster at {address} no longer answers")
    assert said.count("\n") == 1

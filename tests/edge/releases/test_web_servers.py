"""Edges fetch what the cloud publishes from web servers as they are: nginx as in the docs, and Python's."""

from pathlib import Path

import pytest
from tests.edge.releases.by_hand.mirror import HEADER, SHAPE, Edge, measure
from tests.edge.releases.web_servers import nginx_program, python_server

from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.publishing.static_files import StaticFiles
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.trust.signing import SigningKey


@pytest.mark.skipif(nginx_program() is None, reason="nginx is not installed")
def test_many_edges_fetch_from_nginx_and_idle_ones_cost_little(tmp_path: Path):
    said: list[str] = []
    first, idle, second, again, word = measure(10, tmp_path, said.append)
    assert [line.split(": ")[0] for line in said] == [
        *("first release", "nothing new", "second release", "nothing new", "another word")
    ]
    for line, version in zip(said, (1, 1, 2, 2, 2), strict=True):
        assert f"10 of 10 edges have release {version} " in line
        assert line.endswith("; 0 failures")
    assert idle < 500
    assert again < 500
    assert idle < word < 2_000 < first
    assert word < second


def test_they_fetch_from_pythons_server(tmp_path: Path):
    home, out = tmp_path / "cloud", tmp_path / "www"
    home.mkdir()
    SigningKey().write(home / "signing.pem")
    cloud = CloudReleases(home)
    cloud.publish(Shift.identity(SHAPE, seed=1), HEADER)
    with StaticFiles.open(home, out) as files, python_server(out) as address:
        edge = Edge(tmp_path / "edge", address, cloud.key().public)
        files.write()
        for version in (1, 1):
            edge.fetcher.step()
            assert (edge.version, edge.failures) == (version, [])
        cloud.publish(Shift.identity(SHAPE, seed=2), HEADER)
        edge.fetcher.step()
        assert edge.version == 1, "it is not published yet"
        files.write()
        edge.fetcher.step()
        assert (edge.version, edge.failures) == (2, [])

"""The fetcher as `join` starts it: in its sandbox, between a cloud in the test's process and an agent."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.edge.deployment.deployments import CLOUD, deployed, releases, served, settings
from tests.edge.deployment.sandboxes import inside, outside
from tests.edge.edge_clients import write_client
from tests.edge.releases.published import Cloud

from fedperfit.edge.deployment.fetcher import FetcherProgram
from fedperfit.edge.deployment.home import Home
from fedperfit.edge.deployment.supernode import SuperNode
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.system.files import write_atomic, write_json
from fedperfit.protocol.system.processes import Children, wait_until

_SEEN = """
import os, sys
print(sorted(os.listdir("/edge")), [path for path in sys.argv[1:] if os.path.exists(path)])
"""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with Cloud(tmp_path).up() as cloud:
        yield cloud


@pytest.fixture
def home(tmp_path: Path, cloud: Cloud) -> Home:
    home = Home(write_client(tmp_path / "ada", items=24))
    write_atomic(home.node / "ca.crt", cloud.authority.read_bytes())
    write_atomic(home.node / "node.key", b"secret")
    write_json(home.node / "address.json", {"address": cloud.address})
    settings(fetch_seconds=2.0).write(home)
    return home


def test_it_sees_the_authority_and_the_agents_socket_alone(home: Home) -> None:
    home.feed.mkdir()
    secret = [home.node / "node.key", home.folder / "client.json", home.folder]
    program = FetcherProgram(home, unconfined=False)
    assert inside(_SEEN, *secret, shown=program.shown) == "['ca.crt', 'feed'] []"
    code = _SEEN.replace('os.listdir("/edge")', "[]")
    assert outside(code, *secret) == f"[] {[str(path) for path in secret]}", "the control"


@pytest.mark.parametrize("unconfined", [False, True])
def test_it_brings_the_release_in_force_to_the_agent(
    home: Home, cloud: Cloud, header: ShiftHeader, unconfined: bool
) -> None:
    if not unconfined:
        inside("", shown={})  # skips where there is no sandbox
    one, two = releases(header, 2)
    cloud.publish(one, CLOUD)
    with (
        deployed(home.folder) as edge,
        served(edge),
        SuperNode(home, unconfined).connected(),
        Children() as children,
    ):
        child = FetcherProgram(home, unconfined).start(children)
        reached = wait_until(lambda: edge.releases.current() == one, 60)
        assert reached, child.log.read_text()
        cloud.publish(two, CLOUD)
        published = time.monotonic()
        assert wait_until(lambda: edge.releases.current() == two, 60)
        assert time.monotonic() - published < 10
        told = "fetched release 1\nfetched release 2\n"
        assert wait_until(lambda: child.log.read_text() == told, 10), "it says so once the agent has it"

"""The fetcher as `join` starts it: in its sandbox, between a cloud in the test's process and an agent."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.edge.deployment.deployments import CLOUD, agree, deployed, policy, releases, served, settings
from tests.edge.deployment.sandboxes import inside, outside
from tests.edge.edge_clients import write_client
from tests.edge.releases.published import Cloud, Mirror

from fedperfit.edge.deployment.fetcher import FetcherProgram
from fedperfit.edge.deployment.home import Home
from fedperfit.edge.deployment.supernode import SuperNode
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.system.errors import InputError
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


def test_it_fetches_from_the_mirror_that_the_owner_agreed_to(
    home: Home, cloud: Cloud, tmp_path_factory: pytest.TempPathFactory, header: ShiftHeader
) -> None:
    inside("", shown={})  # skips where there is no sandbox
    (one,) = releases(header, 1)
    with Mirror(tmp_path_factory.mktemp("mirror")).up() as mirror:
        agree(home.folder, policy(mirror=f"http://{mirror.address}/our/mirror"))
        mirror.publish(one, CLOUD)
        program = FetcherProgram(home, unconfined=False)
        with (
            deployed(home.folder) as edge,
            served(edge),
            SuperNode(home, unconfined=False).connected(),
            program.connected(),
            Children() as children,
        ):
            child = program.start(children)
            assert wait_until(lambda: edge.releases.current() == one, 60), child.log.read_text()
        assert cloud.asked == []


def test_the_mirror_is_told_of_by_what_the_owner_agreed_to(home: Home) -> None:
    program = FetcherProgram(home, unconfined=True)
    assert (program.mirror, "--mirror" in program.command()) == ("", False)
    agree(home.folder, policy(mirror="https://cdn.example.org/ours"))
    assert program.mirror == "https://cdn.example.org/ours"
    outside_of_it = program.command()
    assert outside_of_it[outside_of_it.index("--mirror") + 1] == program.mirror
    assert "--way" not in outside_of_it
    confined_in_it = FetcherProgram(home, unconfined=False).command()
    assert confined_in_it[confined_in_it.index("--way") + 1] == "127.0.0.1:8444"
    write_json(home.policy, {"policy": []})
    with pytest.raises(InputError, match=r"policy\.json: not a signed policy"):
        program.command()

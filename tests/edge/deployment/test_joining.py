"""Which programs of an edge are started, and when they are started anew."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from tests.edge.deployment.deployments import settings

from fedperfit.edge.agent.history import SEALED
from fedperfit.edge.deployment import joining
from fedperfit.edge.deployment.home import Home
from fedperfit.edge.deployment.joining import keep_running
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json


class FakeChildren:
    """Programs that only say that they run."""

    def __init__(self) -> None:
        self.children: list[SimpleNamespace] = []
        self.did: list[str] = []

    def start(self, name: str, *_: object, **__: object) -> SimpleNamespace:
        self.did.append(f"start {name}")
        self.children.append(SimpleNamespace(name=name))
        return self.children[-1]

    def stop(self, child: SimpleNamespace) -> None:
        self.did.append(f"stop {child.name}")
        self.children.remove(child)

    def dead(self) -> None:
        return None

    def __enter__(self) -> "FakeChildren":
        return self

    def __exit__(self, *_: object) -> None:
        self.children.clear()


class FakeProgram:
    def __init__(self, name: str) -> None:
        self.name = name

    @contextmanager
    def connected(self) -> Iterator[None]:
        yield

    def start(self, children: FakeChildren) -> SimpleNamespace:
        return children.start(self.name)


@pytest.mark.parametrize("changed", [True, False])
def test_what_talks_to_the_cloud_starts_anew_when_its_authorities_changed(tmp_path, monkeypatch, changed):
    home, children, asked = Home(tmp_path / "ada"), FakeChildren(), []
    settings().write(home)
    write_json(
        home.folder / "client.json", {"name": "ada", "task": "LaMP_2M", "shares_metrics": False, SEALED: True}
    )
    monkeypatch.setattr(joining, "Children", lambda: children)
    monkeypatch.setattr(joining, "SuperNode", lambda *_: FakeProgram("supernode"))
    monkeypatch.setattr(joining, "FetcherProgram", lambda *_: FakeProgram("fetcher"))
    monkeypatch.setattr(joining, "_agent_up", lambda *_: True)
    monkeypatch.setattr(joining.time, "sleep", lambda seconds: None)
    turns = iter(range(5))
    keep_running(
        home,
        unconfined=True,
        say=lambda line: None,
        stopping=lambda: next(turns, None) is None,
        changed=lambda: asked.append(1) or changed,
    )
    assert len(asked) == 1, "at the beginning, then every hour"
    first = ["start agent", "start supernode", "start fetcher"]
    anew = ["stop supernode", "start supernode", "stop fetcher", "start fetcher"]
    assert children.did == first + (anew if changed else [])


class FakeAgent:
    """An agent's process, whose parent is another one; it ends when it is told to, or only when killed."""

    pid = 4711

    def __init__(self, home: Home, *parent: str, stubborn: bool = False) -> None:
        self.home, self.above, self.stubborn = home, SimpleNamespace(cmdline=lambda: list(parent)), stubborn
        self.did: list[str] = []

    def cmdline(self) -> list[str]:
        return ["python", "-P", "-m", "fedperfit.edge.cli.main", "agent", str(self.home.folder)]

    def parent(self) -> SimpleNamespace:
        return self.above

    def terminate(self) -> None:
        self.did.append("terminate")

    def kill(self) -> None:
        self.did.append("kill")


@pytest.mark.parametrize(
    ("parent", "stubborn", "did"),
    [("/sbin/init", False, ["terminate"]), ("/sbin/init", True, ["terminate", "kill"]), ("join", False, [])],
)
def test_an_agent_that_a_killed_join_left_is_stopped_and_a_living_ones_is_not(
    tmp_path, monkeypatch, parent, stubborn, did
):
    home, said = Home(tmp_path / "ada"), []
    agent = FakeAgent(home, parent, stubborn=stubborn)
    other = FakeAgent(Home(tmp_path / "ben"), "/sbin/init")

    def waited(agents: list[FakeAgent], timeout: float) -> tuple[list[FakeAgent], list[FakeAgent]]:
        return [], [one for one in agents if one.stubborn and "kill" not in one.did]

    monkeypatch.setattr(joining.psutil, "process_iter", lambda: [other, agent])
    monkeypatch.setattr(joining.psutil, "wait_procs", waited)
    if parent == "join":
        with pytest.raises(InputError, match="runs already, process 4711"):
            joining._be_alone(home, said.append)
    else:
        joining._be_alone(home, said.append)
        assert "4711" in said[0]
    assert agent.did == did
    assert other.did == []

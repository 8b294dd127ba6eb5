"""What a killed `join` left is found and stopped, and what a living one runs is not."""

import os
from types import SimpleNamespace

import pytest
from tests.cloud.deployment.clouds import needs_bwrap
from tests.protocol.sandboxes.interrupted import ended, interrupted

from fedperfit.edge.deployment import left_over
from fedperfit.edge.deployment.home import Home
from fedperfit.edge.deployment.left_over import left_sandboxes, stop_left_over
from fedperfit.edge.sandbox.confinement import confined
from fedperfit.edge.sandbox.uplink import SOCKET
from fedperfit.protocol.system.errors import InputError


class FakeAgent:
    """An agent's process, whose parent is another one; it ends when it is told to, or only when killed."""

    pid = 4711

    def __init__(self, home: Home, *parent: str, stubborn: bool = False) -> None:
        self.home, self.above, self.stubborn = home, SimpleNamespace(cmdline=lambda: list(parent)), stubborn
        self.did: list[str] = []
        self.account = os.getuid()

    def uids(self) -> SimpleNamespace:
        return SimpleNamespace(real=self.account)

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

    monkeypatch.setattr(left_over.psutil, "process_iter", lambda: [other, agent])
    monkeypatch.setattr(left_over.psutil, "wait_procs", waited)
    if parent == "join":
        with pytest.raises(InputError, match="runs already, process 4711"):
            stop_left_over(home, said.append)
    else:
        stop_left_over(home, said.append)
        assert "4711" in said[0]
    assert agent.did == did
    assert other.did == []


@pytest.mark.parametrize("parent", ["join", "/sbin/init"])
def test_a_process_of_another_account_is_no_agent_of_ours(tmp_path, monkeypatch, parent):
    """Anybody may start a program under the command line of an agent, to keep a person from joining."""
    home, said = Home(tmp_path / "ada"), []
    agent = FakeAgent(home, parent)
    agent.account += 1
    monkeypatch.setattr(left_over.psutil, "process_iter", lambda: [agent])
    stop_left_over(home, said.append)
    assert (agent.did, said) == ([], [])


@needs_bwrap
def test_a_sandbox_that_was_left_before_anything_ran_in_it_is_stopped(tmp_path):
    home, said = Home(tmp_path / "ada"), []
    home.uplink.mkdir(parents=True)
    command = confined(["sleep", "600"], shown={}, uplink=home.uplink / SOCKET)
    with interrupted(command, tmp_path) as (first, _):
        (left,) = left_sandboxes(home)
        assert left == first
        assert left_sandboxes(Home(tmp_path / "ben")) == []
        stop_left_over(home, said.append)
        assert ended(first)
    assert str(first.pid) in said[0]

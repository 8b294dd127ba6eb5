import subprocess
from pathlib import Path

import pytest
from tests.edge.deployment.deployments import settings

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.deployment.supernode import SuperNode
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.system.flower import CLIENT_APP, OTHER_APPS


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "ada")
    home.node.mkdir(parents=True)
    write_json(home.node / "address.json", {"address": "cloud.example.org:8443"})
    settings().write(home)
    return home


def test_an_agent_on_a_port_of_the_loopback_is_not_reached_from_the_sandbox(home: Home) -> None:
    settings(tcp=True).write(home)
    with pytest.raises(InputError, match=r"agent\.json: tcp: "), SuperNode(home, False).connected():
        pass
    with SuperNode(home, True).connected():
        pass


def test_a_system_without_a_sandbox_is_told_at_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home.folder))
    with pytest.raises(InputError, match="bwrap is missing"), SuperNode(home, False).connected():
        pass


@pytest.mark.parametrize("program", OTHER_APPS)
def test_programs_for_other_tasks_say_that_they_are_refused(home: Home, program: str) -> None:
    SuperNode(home, True).command()
    done = subprocess.run(
        [home.node / "programs" / program, "--token", "x"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr.decode()) == (1, f"refused: no {program} runs at an edge\n")


@pytest.mark.parametrize("runs", [True, False])
def test_superexec_finds_our_programs_or_none(home: Home, runs: bool) -> None:
    path = SuperNode(home, True).command()[-1].split("; ", 1)[0]
    program = home.node / "programs" / CLIENT_APP
    program.chmod(0o700 if runs else 0o600)
    which = subprocess.run(["sh", "-c", f"{path}; command -v {CLIENT_APP}"], capture_output=True, check=False)
    assert which.stdout.decode().strip() == (str(program) if runs else "")

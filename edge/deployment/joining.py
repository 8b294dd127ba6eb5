"""Keeps a person's three programs running, once their folder has joined a cloud."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import grpc
import psutil

from fedperfit.edge.agent.history import files_to_seal, read_history
from fedperfit.edge.deployment.endpoint import connect
from fedperfit.edge.deployment.fetcher import FetcherProgram
from fedperfit.edge.deployment.home import Home, read_settings
from fedperfit.edge.deployment.supernode import SuperNode
from fedperfit.edge.vault.keys import UNPROTECTED, passphrase_variable
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.system.processes import Child, Children, wait_until

_START_SECONDS = 600.0
"""Seconds the agent has to load the base model."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0
"""Seconds before a program that ended is started again; they double each time it ends early."""
_ASK_SECONDS = 3600.0
_STOP_SECONDS = 10.0
"""Seconds that an agent whose `join` is gone has to end by itself."""
_AGENT = "fedperfit.edge.cli.main"
"""Module that an agent is started by."""
_OLD = 60.0
"""Seconds of running after which an end no longer counts as early."""


def running_agents(home: Home) -> list[psutil.Process]:
    """List the agents of a folder that a `join` started.

    Args:
        home: the person's folder.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = process.cmdline()
            if _AGENT in line and line[-2:] == ["agent", str(home.folder)]:
                found.append(process)
    return found


def orphaned(agent: psutil.Process) -> bool:
    """Return whether the `join` that started an agent is gone."""
    with suppress(psutil.Error):
        parent = agent.parent()
        return parent is None or "join" not in parent.cmdline()
    return False


def _be_alone(home: Home, say: Callable[[str], None]) -> None:
    """Stop the agent of a killed `join`, which would hold the vault; raises InputError for a living one's."""
    for agent in running_agents(home):
        if not orphaned(agent):
            raise InputError(
                f"{home.folder}: its agent runs already, process {agent.pid}; stop its `join` first"
            )
        say(f"the agent of a `join` that is gone, process {agent.pid}, is stopped")
        for stop in (agent.terminate, agent.kill):
            with suppress(psutil.NoSuchProcess):
                stop()
            if not psutil.wait_procs([agent], timeout=_STOP_SECONDS)[1]:
                break


def keep_running(
    home: Home,
    *,
    unconfined: bool,
    say: Callable[[str], None],
    stopping: Callable[[], bool],
    changed: Callable[[], bool],
) -> None:
    """Run agent, SuperNode and fetcher until told to stop, starting again whichever ends.

    None is left running.

    Args:
        home: the person's folder, as `settle` made it.
        unconfined: run SuperNode and fetcher with the rights of the user, not under bubblewrap.
        say: shows a line to the owner.
        stopping: whether to stop.
        changed: whether what talks to the cloud must start anew; asked at the beginning and every hour.

    Raises:
        RunFailed: the agent did not come up at first.
        InputError: the system cannot confine the SuperNode, or the folder's agent runs already.
    """
    _be_alone(home, say)
    agent = [sys.executable, "-P", "-m", _AGENT, "agent", str(home.folder)]
    kind = read_settings(home).key
    secret = passphrase_variable(kind, new=not home.vault_key.exists())
    for remark in read_history(home.folder).remarks:
        say(remark)
    for file in files_to_seal(home.folder):
        say(f"{file} is imported into the vault, sealed; the file stays, in clear, and is yours to delete")
    say(f"the vault's key is kept by {UNPROTECTED[kind]}")
    variables = {**os.environ, **secret}
    log = home.folder / "agent.log"
    node = SuperNode(home, unconfined)
    pauses = dict.fromkeys(("agent", "supernode", "fetcher"), _SHORTEST_PAUSE)
    born: dict[str, float] = {}
    with node.connected(), Children() as children:

        def launch(name: str) -> Child:
            born[name] = time.monotonic()
            if name == "supernode":
                return node.start(children)
            if name == "fetcher":
                return FetcherProgram(home, unconfined).start(children)
            return children.start(name, agent, log=log, environment=variables)

        first = launch("agent")
        if not _agent_up(home, first, stopping):
            if stopping():
                return
            raise RunFailed(f"the agent did not start: {first.last_words()}")
        launch("supernode")
        launch("fetcher")
        say(f"joined as {read_json(home.folder / 'client.json')['name']}; logs: {home.supernode_log}")
        due = time.monotonic()
        while not stopping():
            if time.monotonic() >= due:
                due = time.monotonic() + _ASK_SECONDS
                if changed():
                    for child in [one for one in children.children if one.name != "agent"]:
                        children.stop(child)
                        launch(child.name)
            dead = children.dead()
            if dead is None:
                time.sleep(0.2)
                continue
            if time.monotonic() - born[dead.name] > _OLD:
                pauses[dead.name] = _SHORTEST_PAUSE
            pause = pauses[dead.name]
            pauses[dead.name] = min(2 * pause, _LONGEST_PAUSE)
            say(f"the {dead.name} ended; starting it again in {pause:g} s (see {dead.log})")
            children.stop(dead)
            wait_until(stopping, pause)
            if not stopping():
                launch(dead.name)


def _agent_up(home: Home, agent: Child, stopping: Callable[[], bool]) -> bool:
    def ready() -> bool:
        return agent.process.poll() is not None or stopping() or _answers(home)

    return wait_until(ready, _START_SECONDS) and agent.process.poll() is None and not stopping()


def _answers(home: Home) -> bool:
    try:
        with connect(home.bridge) as channel:
            grpc.channel_ready_future(channel).result(timeout=1)
        return True
    except grpc.FutureTimeoutError:
        return False

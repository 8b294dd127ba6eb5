"""Keeps a person's three programs running, once their folder has joined a cloud."""

import os
import sys
import time
from collections.abc import Callable

import grpc

from fedperfit.edge.agent.history import files_to_seal, read_history
from fedperfit.edge.deployment.endpoint import connect
from fedperfit.edge.deployment.fetcher import FetcherProgram
from fedperfit.edge.deployment.home import Home, client_name, read_settings
from fedperfit.edge.deployment.left_over import AGENT, stop_left_over
from fedperfit.edge.deployment.supernode import SuperNode
from fedperfit.edge.vault.keys import UNPROTECTED, passphrase_variable
from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.files import private_folder
from fedperfit.protocol.system.memory import limit_memory
from fedperfit.protocol.system.processes import Child, Children, wait_until

_START_SECONDS = 600.0
"""Seconds the agent has to load the base model."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0
"""Seconds before a program that ended is started again; they double each time it ends early."""
_ASK_SECONDS = 3600.0
_OLD = 60.0
"""Seconds of running after which an end no longer counts as early."""


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
    private_folder(home.folder)
    stop_left_over(home, say)
    agent = [sys.executable, "-P", "-m", AGENT, "agent", str(home.folder)]
    settings = read_settings(home)
    limit_memory(settings.memory_gib)
    kind = settings.key
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
    fetcher = FetcherProgram(home, unconfined)
    with node.connected(), fetcher.connected(), Children() as children:

        def launch(name: str) -> Child:
            born[name] = time.monotonic()
            if name == "supernode":
                return node.start(children)
            if name == "fetcher":
                return fetcher.start(children)
            return children.start(name, agent, log=log, environment=variables)

        first = launch("agent")
        if not _agent_up(home, first, stopping):
            if stopping():
                return
            raise RunFailed(f"the agent did not start: {first.last_words()}")
        launch("supernode")
        launch("fetcher")
        say(f"joined as {client_name(home)}; logs: {home.supernode_log}")
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

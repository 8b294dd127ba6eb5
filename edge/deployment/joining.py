"""Joins a cloud: makes a person's folder from an enrolment, then keeps its three programs running."""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from fedperfit.edge.agent.history import SEALED, files_to_seal
from fedperfit.edge.deployment.endpoint import connect
from fedperfit.edge.deployment.fetcher import FetcherProgram
from fedperfit.edge.deployment.home import AgentSettings, Home, read_settings
from fedperfit.edge.deployment.supernode import SuperNode
from fedperfit.edge.vault.keys import UNPROTECTED, passphrase_variable
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.system.errors import InputError, MissingFileError, RunFailed
from fedperfit.protocol.system.files import read_json, write_atomic, write_json
from fedperfit.protocol.system.processes import Child, Children, wait_until
from fedperfit.protocol.trust.bundle import Bundle
from fedperfit.protocol.trust.policy import write_policy

_START_SECONDS = 600.0
"""Seconds the agent has to load the base model."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0
"""Seconds before a program that ended is started again; they double each time it ends early."""
_OLD = 60.0
"""Seconds of running after which an end no longer counts as early."""


def settle(
    bundle: Bundle,
    home: Home,
    *,
    history: Path | None,
    questions: Path | None,
    base_model: str,
    shares_metrics: bool,
    key: str,
    device: str,
    encoder: str = "",
    plain_history: bool = False,
    fetch_seconds: float = 30.0,
) -> AgentSettings:
    """Make a person's folder from an enrolment; a folder made from it before stays as it is.

    Args:
        bundle: the enrolment that the cloud gave out.
        home: the folder.
        history: the owner's own file, which is only read; None for history.jsonl in the folder.
        questions: file of held-out questions, if there is one.
        base_model: folder or hub name of the bundle's base model on this machine; empty for its own name.
        shares_metrics: whether sums of losses and scores may go to the cloud.
        key: how the vault's key is kept: file, passphrase or keyring.
        device: auto, cpu or cuda.
        encoder: sentence encoder that selects items for the group's directions; empty for the base model.
        plain_history: whether the history stays in its files; by default the agent imports it into the vault.
        fetch_seconds: time between two looks for a new release, about.

    Returns:
        The settings of the agent in this folder.

    Raises:
        InputError: the base model is another one, the history is missing, or the folder belongs to another
            enrolment.
    """
    digest = hashlib.sha256(repr(sorted(vars(bundle).items())).encode()).hexdigest()
    if home.enrolment.exists():
        if home.enrolment.read_text() != digest:
            raise InputError(f"{home.folder}: belongs to another enrolment; choose another --folder")
        return read_settings(home)
    name = base_model or bundle.base_model
    if read_card(name).fingerprint != bundle.fingerprint:
        raise InputError(f"{name} is not the base model this cloud trains for")
    client: dict[str, object] = {"name": bundle.name, "task": bundle.task, "shares_metrics": shares_metrics}
    if not plain_history:
        client[SEALED] = False
    for field, path in (("history", history), ("questions", questions)):
        if path is not None:
            if not path.is_file():
                raise MissingFileError(f"{path}: no such file")
            client[field] = str(path.absolute())
    if history is None and not (home.folder / "history.jsonl").is_file():
        raise InputError(f"--history: where is your history? (or put history.jsonl into {home.folder})")
    home.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_json(home.folder / "client.json", client)
    settings = AgentSettings(
        base_model=name,
        release_key=bundle.release_key,
        key=key,
        device=device,
        encoder=encoder,
        fetch_seconds=fetch_seconds,
    )
    settings.write(home)
    write_policy(home.policy, bundle.signed_policy)
    write_atomic(home.node / "ca.crt", bundle.authority.encode())
    write_atomic(home.node / "node.key", bundle.node_key.encode())
    write_json(home.node / "address.json", {"address": bundle.address})
    write_atomic(home.enrolment, digest.encode())
    return settings


def keep_running(
    home: Home, *, unconfined: bool, say: Callable[[str], None], stopping: Callable[[], bool]
) -> None:
    """Run agent, SuperNode and fetcher until told to stop, starting again whichever ends.

    None is left running.

    Args:
        home: the person's folder, as `settle` made it.
        unconfined: run SuperNode and fetcher with the rights of the user, not under bubblewrap.
        say: shows a line to the owner.
        stopping: whether to stop.

    Raises:
        RunFailed: the agent did not come up at first.
        InputError: the system cannot confine the SuperNode.
    """
    agent = [sys.executable, "-P", "-m", "fedperfit.edge.cli.main", "agent", str(home.folder)]
    kind = read_settings(home).key
    secret = passphrase_variable(kind, new=not home.vault_key.exists())
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
        while not stopping():
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

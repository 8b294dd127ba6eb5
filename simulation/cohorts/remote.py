"""Cohorts on a cluster, from the run's side: requests and folders go out, replies and changes come back."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from flwr.app import Message

from fedperfit.protocol.messages.keys import CONTRIBUTE_TYPE, EVALUATE_TYPE
from fedperfit.protocol.system.files import append_text
from fedperfit.protocol.system.flower_internals import message_from_bytes, message_to_bytes
from fedperfit.simulation.client_app import CLIENTS, ENROLLED, REFUSALS
from fedperfit.simulation.cluster.cluster import ClusterRequest, cluster
from fedperfit.simulation.cluster.folders import whole_path, write_folder
from fedperfit.simulation.cluster.pool import Pool
from fedperfit.simulation.cluster.store import Store
from fedperfit.simulation.cohorts.cohort import Call, Cohort
from fedperfit.simulation.cohorts.grid import Request, Respond
from fedperfit.simulation.stored_models import AGENT, read_about

_PREPARING = 2
"""How many times as long a client's part in a round takes in a cohort that must prepare its items first."""


@contextmanager
def remote_cohorts(folder: Path, clients: int, request: ClusterRequest) -> Iterator[Respond]:
    """Place cohorts on a cluster for the length of the block, and yield what has them answer.

    Args:
        folder: Folder of the run, with all clients' folders.
        clients: Number of clients.
        request: Workers that are wanted, one for each cohort, and where.

    Raises:
        InputError: The cluster cannot be used (see `cluster`).
    """
    with cluster(request) as placed:
        make = partial(Cohort, _shared_files(folder / CLIENTS), clients)
        yield RemoteCohorts(folder, Pool[int](placed, make)).respond


class RemoteCohorts:
    """Cohorts on a cluster, each with its share of the clients that are asked."""

    def __init__(self, folder: Path, pool: Pool[int]) -> None:
        """Know the run and the workers.

        Args:
            folder: Folder of the run.
            pool: Workers, each of which makes a `Cohort`.
        """
        self._folder, self._pool = folder, pool
        self._store = Store()

    def respond(self, requests: Sequence[Request]) -> Iterator[Message]:
        """Yield a reply to each request, as the cohorts make them.

        A cohort whose worker dies acts anew from the folders as they were, so that its replies stay the same;
        of those that came before, nothing changes.

        Args:
            requests: Messages to clients, each with the context of its node.
        """
        messages = {_partition(context): message for message, context in requests}
        clients = self._folder / CLIENTS
        calls = {
            number: [
                Call(n, message_to_bytes(message), self._store.reference(clients / str(n)))
                for n, message in messages.items()
                if n in share
            ]
            for number, share in enumerate(shares_of(messages, clients, len(self._pool)))
            if share
        }
        delivered: set[int] = set()
        for _, returned in self._pool.work(list(calls), calls.__getitem__, home=lambda number: number):
            if returned.partition in delivered:
                continue
            delivered.add(returned.partition)
            write_folder(clients / str(returned.partition), returned.files)
            if returned.refusals:
                append_text(self._folder / REFUSALS, returned.refusals)
            yield message_from_bytes(returned.message)


def shares_of(messages: Mapping[int, Message], clients: Path, cohorts: int) -> list[set[int]]:
    """Deal the clients that are asked to cohorts.

    Args:
        messages: Request to each client, by partition.
        clients: Folder of all clients' folders.
        cohorts: Number of cohorts.

    Returns:
        Clients of each cohort.
    """
    work = {n: work_of(clients / str(n), message) for n, message in messages.items()}
    in_round = all(message.metadata.message_type == CONTRIBUTE_TYPE for message in messages.values())
    return dealt(work, cohorts, away=_PREPARING if in_round else 1)


def work_of(folder: Path, message: Message) -> int:
    """Estimate the work of a request: the client's items, or the questions that it is to answer.

    Args:
        folder: The client's folder.
        message: The request.
    """
    if message.metadata.message_type == EVALUATE_TYPE:
        return _lines(folder / "questions.jsonl")
    return _lines(folder / "history.jsonl") + _lines(folder / "answered.jsonl")


@cache
def _lines(path: Path) -> int:
    """Count the lines of a file of a client's history, which stays as it is."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def dealt(work: Mapping[int, int], cohorts: int, away: int = 1) -> list[set[int]]:
    """Deal clients to cohorts so that these end together: the longest first, each to where it ends soonest.

    It depends on who is asked alone, so that a run that is resumed deals as it would have. Among cohorts in
    which it ends as soon, a client goes to the one that it goes to in other rounds, its home.

    Args:
        work: Items of each client that is asked, by partition.
        cohorts: Number of cohorts.
        away: How many times as long as at home a client takes elsewhere.

    Returns:
        Clients of each cohort.
    """
    shares: list[set[int]] = [set() for _ in range(cohorts)]
    loads = [0] * cohorts

    def end(cohort: int, client: int) -> int:
        return loads[cohort] + work[client] * (1 if client % cohorts == cohort else away)

    for client in sorted(work, key=lambda client: (-work[client], client)):
        share = min(range(cohorts), key=lambda n: (end(n, client), (n - client) % cohorts))
        loads[share] = end(share, client)
        shares[share].add(client)
    return shares


def _partition(context: Any) -> int:
    return int(context.node_config["partition-id"])


def _shared_files(clients: Path) -> dict[str, bytes]:
    """Read what all clients share; a model or an encoder in a local folder is named by its whole path."""
    about: dict[str, Any] = {**read_about(clients)}
    about |= {key: whole_path(about[key]) for key in ("base-model", "encoder") if about.get(key)}
    files = {AGENT: json.dumps(about).encode()}
    if (clients / ENROLLED).exists():
        files[ENROLLED] = (clients / ENROLLED).read_bytes()
    return files

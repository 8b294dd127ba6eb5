"""Cohorts on a cluster, from the run's side: requests and folders go out, replies and changes come back."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from flwr.app import Message

from fedperfit.protocol.messages.keys import EVALUATE_TYPE
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.system.flower_internals import message_from_bytes, message_to_bytes
from fedperfit.simulation.client_app import CLIENTS, ENROLLED, REFUSALS
from fedperfit.simulation.cluster.cluster import ClusterRequest, cluster
from fedperfit.simulation.cluster.folders import whole_path, write_folder
from fedperfit.simulation.cluster.pool import Pool
from fedperfit.simulation.cluster.store import Store
from fedperfit.simulation.cohorts.cohort import Call, Cohort
from fedperfit.simulation.cohorts.grid import Request, Respond
from fedperfit.simulation.stored_models import AGENT


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
        work = {n: work_of(clients / str(n), message) for n, message in messages.items()}
        shares = dealt(work, len(self._pool))
        calls = {
            number: [
                Call(n, message_to_bytes(message), self._store.reference(clients / str(n)))
                for n, message in messages.items()
                if n in share
            ]
            for number, share in enumerate(shares)
            if share
        }
        delivered: set[int] = set()
        for _, returned in self._pool.work(list(calls), calls.__getitem__, home=lambda number: number):
            if returned.partition in delivered:
                continue
            delivered.add(returned.partition)
            write_folder(clients / str(returned.partition), returned.files)
            if returned.refusals:
                with (self._folder / REFUSALS).open("a", encoding="utf-8") as file:
                    file.write(returned.refusals)
            yield message_from_bytes(returned.message)


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


def dealt(work: Mapping[int, int], cohorts: int) -> list[set[int]]:
    """Deal clients to cohorts so that these end together: the longest first, each to whom has least.

    It depends on who is asked alone, so that a run that is resumed deals as it would have. Among cohorts with
    as little to do, a client goes to the one that it goes to in other rounds, which has its items prepared.

    Args:
        work: Items of each client that is asked, by partition.
        cohorts: Number of cohorts.

    Returns:
        Clients of each cohort.
    """
    shares: list[set[int]] = [set() for _ in range(cohorts)]
    loads = [0] * cohorts
    for client in sorted(work, key=lambda client: (-work[client], client)):
        share = min(range(cohorts), key=lambda n: (loads[n], (n - client) % cohorts))
        shares[share].add(client)
        loads[share] += work[client]
    return shares


def _partition(context: Any) -> int:
    return int(context.node_config["partition-id"])


def _shared_files(clients: Path) -> dict[str, bytes]:
    """Read what all clients share; a model or an encoder in a local folder is named by its whole path."""
    about = read_json(clients / AGENT)
    about |= {key: whole_path(about[key]) for key in ("base-model", "encoder") if about.get(key)}
    files = {AGENT: json.dumps(about).encode()}
    if (clients / ENROLLED).exists():
        files[ENROLLED] = (clients / ENROLLED).read_bytes()
    return files

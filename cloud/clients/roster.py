"""The roster of a run: waits for the nodes and asks each for its client's name and status."""

import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedperfit.cloud.clients.exchange import Transfer, converse, entries, logger
from fedperfit.cloud.clients.replies import Rejected, exact_keys, guarded, open_records
from fedperfit.protocol.messages.keys import STATUS_RECORD, STATUS_TYPE
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.system.errors import TooFewClients, count_of

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_FIELDS = {
    "client": str,
    "fingerprint": str,
    "task": str,
    "history": int,
    "questions": int,
    "shares-metrics": bool,
}


class NobodyFits(TooFewClients):
    """Enough nodes are connected, but none of their clients can take part."""


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """A client's description of itself."""

    client: str
    """Name: at most 64 letters, digits and `._-`."""
    fingerprint: str
    """Fingerprint of its base model."""
    task: str
    """Id of its task."""
    history: int
    """Number of items it can train on."""
    questions: int
    """Number of held-out questions it can be evaluated on."""
    shares_metrics: bool
    """Whether its owner allows metric sums in replies."""


@dataclass(frozen=True)
class Roster:
    """The clients that can take part in a run."""

    names: dict[int, str]
    """Client names by node id."""
    statuses: dict[str, ClientStatus]
    """Statuses by client name, sorted."""


def roster(
    grid: Grid,
    *,
    expected: int,
    timeout: float,
    fingerprint: str,
    task: str,
    ledger: Ledger,
    enrolled: Mapping[int, str] | None = None,
) -> Roster:
    """Wait for nodes, ask all that are connected, and keep those that fit the run.

    A status that is malformed, or of another base model or task, is dropped with a warning; so are all
    that claim the same name, because none of them can be believed.

    Args:
        grid: Flower's grid.
        expected: Number of nodes to wait for.
        timeout: Seconds to wait for the nodes, and again for their replies.
        fingerprint: Base model of the run.
        task: Id of the run's task.
        ledger: Ledger of the messages.
        enrolled: The only name each node may have; None lets every node name itself.

    Raises:
        TooFewClients: If too few nodes connect.
        NobodyFits: If no client is left.
    """
    nodes = _wait(grid, expected, timeout)
    transfers: list[Transfer] = []
    statuses: dict[int, ClientStatus] = {}
    replied = set()
    contents = dict.fromkeys(nodes, RecordDict())
    for node, reply in converse(
        grid,
        contents,
        STATUS_TYPE,
        names={},
        group="0",
        deadline=timeout,
        transfers=transfers,
    ):
        replied.add(node)
        try:
            statuses[node] = _status(reply, fingerprint, task)
            if enrolled is not None and enrolled.get(node) != statuses[node].client:
                claimed = statuses.pop(node).client
                raise Rejected(f"it calls itself {claimed}, but is enrolled as {enrolled.get(node)}")
        except Rejected as reason:
            logger.warning("status: dropped node %d: %s", node, reason)
    for node in nodes:
        if node not in replied:
            logger.warning("status: dropped node %d: no reply within %g s", node, timeout)
    claims = Counter(status.client for status in statuses.values())
    for node, status in list(statuses.items()):
        if claims[status.client] > 1:
            logger.warning("status: dropped node %d: %s is claimed twice", node, status.client)
            del statuses[node]
    names = {node: status.client for node, status in statuses.items()}
    ledger.add(entries(transfers, names, phase="status", round=0))
    if not statuses:
        raise NobodyFits(f"none of {count_of(len(nodes), 'connected client')} can take part (see the log)")
    by_name = {s.client: s for s in sorted(statuses.values(), key=lambda status: status.client)}
    return Roster(names, by_name)


def _wait(grid: Grid, expected: int, timeout: float) -> list[int]:
    end = time.monotonic() + timeout
    while True:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) >= expected:
            return nodes
        if time.monotonic() >= end:
            raise TooFewClients(
                f"{len(nodes)} of {count_of(expected, 'client')} connected within {timeout:g} s"
            )
        time.sleep(0.2)


def _status(reply: Message, fingerprint: str, task: str) -> ClientStatus:
    def read() -> ClientStatus:
        record = open_records(reply, required={STATUS_RECORD: ConfigRecord})[STATUS_RECORD]
        exact_keys(record, set(_FIELDS), STATUS_RECORD)
        for key, kind in _FIELDS.items():
            if type(record[key]) is not kind:
                raise Rejected(f"{STATUS_RECORD}: {key} is not of type {kind.__name__}")
        if not _NAME.fullmatch(record["client"]):
            raise Rejected(f"client={record['client']!r}: not a client's name")
        for key in ("history", "questions"):
            if record[key] < 0:
                raise Rejected(f"{key}={record[key]}: must not be negative")
        for key, value in (("fingerprint", fingerprint), ("task", task)):
            if record[key] != value:
                raise Rejected(f"{record['client']}: its {key} is {record[key]!r}, not {value!r}")
        return ClientStatus(*(record[key] for key in _FIELDS))

    return guarded(read)

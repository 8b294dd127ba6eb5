"""A cohort on a cluster: clients act side by side there, in a folder that is gone afterwards."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedperfit.protocol.system.flower_internals import identify_process, message_from_bytes, message_to_bytes
from fedperfit.simulation.client_app import CLIENTS, REFUSALS
from fedperfit.simulation.cluster.folders import Files, changed, fill_folder
from fedperfit.simulation.cohorts.grid import RUN_ID, node_context, respond_here
from fedperfit.simulation.optional import required


@dataclass(frozen=True)
class Call:
    """Request to one client."""

    partition: int
    """Number of the client's folder."""
    message: bytes
    """The message, as Flower serialises it."""
    files: Any
    """Reference to the content of the client's folder in the cluster's object store."""


@dataclass(frozen=True)
class Returned:
    """Reply of one client, with what became of its folder."""

    partition: int
    """Number of the client's folder."""
    message: bytes
    """The reply, as Flower serialises it."""
    files: Files
    """Files that the client changed: personal shifts as they are sealed, markers of sums."""
    refusals: str
    """Lines for the run's file of errors."""


class Cohort:
    """What a worker of a cluster does for the clients it is given."""

    def __init__(self, shared: Files, partitions: int, folder: Path) -> None:
        """Load nothing yet; the model is loaded for the first clients.

        Args:
            shared: Files of the clients' common folder: which model they load, and their directory of keys.
            partitions: Number of clients in the run.
            folder: Folder of this worker.
        """
        identify_process(RUN_ID)
        self._shared, self._partitions, self._folder = shared, partitions, folder / "run"

    def do(self, payload: Sequence[Call]) -> Iterator[Returned]:
        """Have clients answer side by side.

        Args:
            payload: Requests to the clients of this cohort.

        Yields:
            Their replies as they are ready.
        """
        contents = required("ray").get([call.files for call in payload])
        files = {call.partition: content for call, content in zip(payload, contents, strict=True)}
        self._folder.mkdir(mode=0o700)
        try:
            yield from self._answers(payload, files)
        finally:
            shutil.rmtree(self._folder)

    def _answers(self, calls: Sequence[Call], files: Mapping[int, Files]) -> Iterator[Returned]:
        clients = self._folder / CLIENTS
        fill_folder(clients, self._shared)
        requests, partition_of = [], {}
        for call in calls:
            fill_folder(clients / str(call.partition), files[call.partition])
            message = message_from_bytes(call.message)
            node = message.metadata.dst_node_id
            partition_of[message.metadata.message_id] = call.partition
            requests.append((message, node_context(self._folder, node, call.partition, self._partitions)))
        refusals = self._folder / REFUSALS
        for reply in respond_here(requests):
            partition = partition_of[reply.metadata.reply_to_message_id]
            told = refusals.read_text(encoding="utf-8") if refusals.exists() else ""
            refusals.unlink(missing_ok=True)
            files_after = changed(files[partition], clients / str(partition))
            yield Returned(partition, message_to_bytes(reply), files_after, told)

"""Fetches releases for the agent, over and over, from the cloud or a mirror: its own program, in a sandbox.

It imports neither torch nor transformers, and knows no key and nothing of the person's.

    python -P -m fedperfit.edge.fetcher_app ADDRESS CA-FILE FEED-FOLDER SECONDS [--mirror WEB-ADDRESS …]
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from fedperfit.edge.deployment.endpoint import connect
from fedperfit.edge.releases.download import CloudFiles, NotFetched, WebFolder, mirror_files
from fedperfit.edge.releases.fetching import Fetcher, Told
from fedperfit.protocol.schema import feed_pb2, feed_pb2_grpc

_AGENT_SECONDS = 120.0
"""Longest time that the agent may take to verify and keep a release."""


class AgentFeed:
    """The agent's socket that takes releases; see `fedperfit.edge.releases.fetching.Feed`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def point(self, pointer: bytes) -> Told:
        """Hand over a pointer; raises NotFetched where the agent refuses it."""
        with self._agent("take the pointer") as stub:
            reply = stub.Point(feed_pb2.PointRequest(pointer=pointer), timeout=_AGENT_SECONDS)
        return Told(reply.version, reply.size, reply.stale, reply.digest, reply.issued)

    def offer(self, release: bytes) -> None:
        """Hand over the release that was wanted; raises NotFetched where the agent refuses it."""
        with self._agent("take the release") as stub:
            stub.Offer(feed_pb2.OfferRequest(release=release), timeout=_AGENT_SECONDS)

    def renew(self) -> None:
        """Wait while the agent renews the personal shift; raises NotFetched where it does not."""
        with self._agent("renew the personal shift") as stub:
            stub.Renew(feed_pb2.RenewRequest())

    @contextmanager
    def _agent(self, what: str) -> Iterator[Any]:
        try:
            with connect(self._folder) as channel:
                yield feed_pb2_grpc.FeedStub(channel)
        except grpc.RpcError as error:
            raise NotFetched(f"the agent did not {what}: {error.details()}") from None


def main() -> None:
    """Fetch for ever, for the folders on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address", help="where the cloud is reached, host:port")
    parser.add_argument("authority", type=Path, help="certificate of the cloud's authority")
    parser.add_argument("feed", type=Path, help="folder of the agent's socket that takes releases")
    parser.add_argument("seconds", type=float, help="time between two looks, about")
    parser.add_argument("--mirror", default="", help="web address that is asked before the cloud")
    parser.add_argument("--way", default="", help="where the mirror is reached, host:port; by default there")
    parser.add_argument("--authorities", type=Path, help="those that may vouch for the mirror")
    arguments = parser.parse_args()
    sources: list[WebFolder] = [CloudFiles(arguments.address, arguments.authority)]
    if arguments.mirror:
        sources.insert(0, mirror_files(arguments.mirror, arguments.way, arguments.authorities))

    def say(line: str) -> None:
        print(line, flush=True)

    fetcher = Fetcher(sources, AgentFeed(arguments.feed), seconds=arguments.seconds, say=say)
    while True:
        time.sleep(fetcher.step())


if __name__ == "__main__":
    main()

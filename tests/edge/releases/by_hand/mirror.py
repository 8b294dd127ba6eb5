"""A thousand edges that fetch releases from nginx on the loopback: seconds, bytes, failures.

Each edge is the fetcher's own code and the agent's store of releases, which verifies all that comes; nginx is
set up as docs/deployment.md shows it. The shift is that of the quickstart. Everybody looks at once, five
times: for the first release, with nothing new, for the second release, with nothing new, and once there is
another word on it, as every hour. Bytes are of whole requests and answers, without TCP's headers.

    python -m tests.edge.releases.by_hand.mirror [EDGES]
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.edge.releases.web_servers import LOG, nginx

from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.publishing.static_files import StaticFiles
from fedperfit.edge.releases.download import mirror_files
from fedperfit.edge.releases.fetching import Fetcher, Told
from fedperfit.edge.releases.store import ReleaseStore
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.trust.signing import SigningKey

SHAPE = ShiftShape(layers=(3, 4), rank=8, hidden_size=192, positions=Positions.parse("l7"))
HEADER = ShiftHeader(shape=SHAPE, task="LaMP_2M", fingerprint="f" * 64, round=8)
_AT_ONCE = 64
"""Edges whose requests are on the way at the same time."""


class Edge:
    """A store of releases and what fetches for it, without an agent around them."""

    def __init__(self, folder: Path, address: str, pinned: str) -> None:
        self.failures: list[str] = []
        self.store = ReleaseStore(folder, pinned=pinned, fingerprint=HEADER.fingerprint, task=HEADER.task)
        self.fetcher = Fetcher([mirror_files(address)], self, seconds=30.0, say=self._say)

    @property
    def version(self) -> int:
        current = self.store.current()
        return current.version if current is not None else 0

    def point(self, pointer: bytes) -> Told:
        wanted, kept = self.store.point(pointer), self.store.pointer()
        issued = kept.issued if kept is not None else ""
        if wanted is None:
            return Told(issued=issued)
        return Told(wanted.version, wanted.size, digest=wanted.digest, issued=issued)

    def offer(self, release: bytes) -> None:
        self.store.fetched(release, lambda release: None)

    def renew(self) -> None:
        raise AssertionError("there is no personal shift")

    def _say(self, line: str) -> None:
        if not line.startswith("fetched"):
            self.failures.append(line)


def measure(edges: int, place: Path, say: Callable[[str], None]) -> list[int]:
    """Have edges look five times; the numbers of bytes of an edge's look, up and down together."""
    home, out = place / "cloud", place / "www"
    home.mkdir()
    place.chmod(0o755)
    SigningKey().write(home / "signing.pem")
    cloud = CloudReleases(home)
    cloud.publish(Shift.identity(SHAPE, seed=1), HEADER)
    with StaticFiles.open(home, out) as files, nginx(out, place / "nginx") as address:
        people = [Edge(place / "edges" / str(n), address, cloud.key().public) for n in range(edges)]

        news: list[tuple[str, Callable[[], object]]] = [
            ("first release", lambda: None),
            ("nothing new", lambda: None),
            ("second release", lambda: cloud.publish(Shift.identity(SHAPE, seed=2), HEADER)),
            ("nothing new", lambda: None),
            ("another word", lambda: cloud.revoke(1)),
        ]
        told = []
        for name, happen in news:
            happen()
            pointer = files.write()
            before, begun = _bytes(place), time.perf_counter()
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(lambda edge: edge.fetcher.step(), people))
            seconds = time.perf_counter() - begun
            there = sum(edge.version == pointer.version for edge in people)
            failures = sum(len(edge.failures) for edge in people)
            up, down = ((now - then) // edges for now, then in zip(_bytes(place), before, strict=True))
            say(
                f"{name}: {there} of {edges} edges have release {pointer.version} after {seconds:.1f} s; "
                f"{down:,} B down and {up:,} B up each; {failures} failures"
            )
            told.append(up + down)
    return told


def _bytes(place: Path) -> tuple[int, int]:
    """Bytes of all requests and of all answers so far."""
    log = place / "nginx" / LOG
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return sum(int(line[1]) for line in lines), sum(int(line[2]) for line in lines)


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp())
    try:
        measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, place, print)
    finally:
        shutil.rmtree(place)

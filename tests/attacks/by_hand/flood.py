"""A cloud that asks an edge for its status a thousand times a second: what it costs, what its owner feels.

Starts an agent of its own in a new folder, floods its bridge as the SuperNode could, and asks it meanwhile
what its owner would. Prints memory, disk and the owner's waiting times, and checks the log afterwards.

    python -m tests.attacks.by_hand.flood --per-second 1000 --seconds 20
"""

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import psutil
from tests.edge.deployment.deployments import agree, policy, settings
from tests.edge.edge_clients import write_client

from fedperfit.edge.audit.files import events
from fedperfit.edge.audit.verification import verify
from fedperfit.edge.deployment.endpoint import connect
from fedperfit.edge.deployment.home import Home
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc, owner_pb2, owner_pb2_grpc
from fedperfit.protocol.system.processes import wait_until

_CALLERS = 16
_START_SECONDS = 120.0


@dataclass
class Measured:
    """What was seen while the flood lasted."""

    sent: int = 0
    """Requests sent by all callers."""
    answered: int = 0
    """Those that were answered with a status."""
    memory: list[int] = field(default_factory=list)
    """Resident bytes of the agent, over time."""
    waited: list[float] = field(default_factory=list)
    """Seconds that the owner waited for each answer."""


@contextmanager
def agent(home: Home) -> Iterator[psutil.Process]:
    """Run an agent of its own in a folder for as long as the block lasts."""
    command = [sys.executable, "-P", "-m", "fedperfit.edge.cli.main", "agent", str(home.folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if not wait_until(lambda: explained(home) is not None, _START_SECONDS):
            raise SystemExit("the agent did not start")
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def explained(home: Home) -> owner_pb2.Explanation | None:
    """Ask as the owner does; None where nobody answers."""
    with suppress(grpc.RpcError), connect(home.owner) as channel:
        told: owner_pb2.Explanation = owner_pb2_grpc.OwnerStub(channel).Explain(
            owner_pb2.ExplainRequest(), timeout=30
        )
        return told
    return None


def flood(home: Home, measured: Measured, per_second: float, end: float) -> None:
    """Ask for the status so often, until the end on the monotonic clock."""
    with connect(home.bridge) as channel:
        stub = bridge_pb2_grpc.BridgeStub(channel)
        due = time.monotonic()
        while (now := time.monotonic()) < end:
            due = max(due + 1 / per_second, now - 1)
            time.sleep(max(0.0, due - now))
            measured.sent += 1
            with suppress(grpc.RpcError):
                stub.Status(bridge_pb2.StatusRequest(), timeout=30)
                measured.answered += 1


def measure(folder: Path, per_second: float, seconds: float) -> bool:
    """Flood an agent and print what was seen; return whether all bounds of the guard held."""
    home = Home(write_client(folder / "ada"))
    agree(home.folder, policy())
    settings().write(home)
    with agent(home) as process:
        parts = [Measured() for _ in range(_CALLERS)]
        before, end = process.memory_info().rss, time.monotonic() + seconds
        callers = [
            threading.Thread(target=flood, args=(home, one, per_second / _CALLERS, end)) for one in parts
        ]
        seen = Measured()
        for caller in callers:
            caller.start()
        while time.monotonic() < end:
            begun = time.monotonic()
            explained(home)
            seen.waited.append(time.monotonic() - begun)
            seen.memory.append(process.memory_info().rss)
            time.sleep(0.25)
        for caller in callers:
            caller.join()
    sent, answered = sum(one.sent for one in parts), sum(one.answered for one in parts)
    disk = sum(path.stat().st_size for path in home.audit.iterdir())
    logged = sum(_counted(event) for event in events(home.audit))
    verdict = verify(home.audit)
    slowest, grown = max(seen.waited), max(seen.memory) - before
    print(f"requests        {sent:,} in {seconds:g} s, {answered:,} answered, {logged:,} in the log")
    print(f"memory          {before / 2**20:.0f} MiB before, at most {grown / 2**20:.0f} MiB more")
    print(
        f"log on disk     {disk / 2**10:.0f} kB; {len(verdict.problems)} problems, {len(verdict.gaps)} gaps"
    )
    print(
        f"owner's answer  {sorted(seen.waited)[len(seen.waited) // 2]:.3f} s median, {slowest:.3f} s slowest"
    )
    return logged == sent and not verdict.problems and slowest < 2 and grown < 64 << 20 and disk < 1 << 20


def _counted(event: dict[str, object]) -> int:
    """Requests that one line of the log stands for."""
    if event["event"] == "request":
        return 1
    calls = event["calls"] if event["event"] == "burst" else {}
    assert isinstance(calls, dict)
    return sum(count for count, _ in calls.values())


def main() -> None:
    """Flood an agent; exit with 1 where a bound did not hold."""
    parser = argparse.ArgumentParser(description="Flood an agent with requests for its status.")
    parser.add_argument("--per-second", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        held = measure(Path(folder), arguments.per_second, arguments.seconds)
    print("bounds          held" if held else "bounds          did NOT hold")
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()

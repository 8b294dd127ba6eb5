"""Random `kill -9` over what a federation runs: nothing orphaned, all up again, logs and chains whole.

Makes a cloud and an edge in a new folder, starts `up` and `join` and starts them again whenever they end, as
systemd would, and kills one process after the other. Needs nginx and bubblewrap, and a machine that is quiet.

    python -m tests.attacks.by_hand.kills --times 200
"""

import argparse
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from types import TracebackType

import grpc
import psutil
from tests.cloud.deployment.clouds import make_cloud
from tests.edge.edge_clients import write_client

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.deployment.signer import signer_ready
from fedperfit.cloud.deployment.up import superlink_ready
from fedperfit.cloud.enrolment.inviting import enroll
from fedperfit.edge.audit.verification import verify
from fedperfit.edge.deployment.endpoint import connect
from fedperfit.edge.deployment.home import Home
from fedperfit.protocol.schema import owner_pb2, owner_pb2_grpc
from fedperfit.protocol.system.errors import FedperfitError
from fedperfit.protocol.system.processes import wait_until

_ORPHAN_SECONDS, _UP_SECONDS = 30.0, 240.0
_VICTIMS = {
    "up": ("cloud", None),
    "superlink": ("cloud", "fedperfit.cloud.deployment.superlink"),
    "signer": ("cloud", "fedperfit.cloud.deployment.signer"),
    "registrar": ("cloud", "fedperfit.cloud.enrolment.registrar"),
    "join": ("edge", None),
    "agent": ("edge", "fedperfit.edge.cli.main"),
    "supernode": ("edge", "fedperfit.edge.supernode_app"),
    "fetcher": ("edge", "fedperfit.edge.fetcher_app"),
}
"""What is killed: the side, and a word of its command line; None for the command that starts the others."""


@dataclass
class Kept:
    """A command that is started again whenever it ends, until the block ends."""

    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Kept":
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._thread.join()

    def family(self) -> list[psutil.Process]:
        """List the command's process and all its descendants, the command first."""
        while self.process is not None and self.process.poll() is None:
            with suppress(psutil.NoSuchProcess):  # one ended while they were listed: list them again
                first = psutil.Process(self.process.pid)
                return [first, *first.children(recursive=True)]
        return []

    def _keep(self) -> None:
        with self.log.open("ab") as out:
            while not self.stopping.is_set():
                self.process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.log.parent
                )
                while self.process.poll() is None and not self.stopping.wait(0.2):
                    pass
                if self.process.poll() is not None:
                    self.stopping.wait(1)
            assert self.process is not None
            self.process.terminate()
            self.process.wait()


@dataclass
class Federation:
    """A cloud and an edge that are kept running."""

    home: CloudHome
    settings: CloudSettings
    edge: Home
    sides: dict[str, Kept]

    def up(self) -> bool:
        """Return whether signer, SuperLink, agent, SuperNode and fetcher are all there."""
        try:
            cloud = signer_ready(self.home) and superlink_ready(self.home, self.settings)
        except FedperfitError:
            cloud = False
        return cloud and answering(self.edge) and all(self.victim(name) is not None for name in _VICTIMS)

    def victim(self, name: str) -> psutil.Process | None:
        """Find the process of one part; None where it does not run."""
        side, word = _VICTIMS[name]
        for process in self.sides[side].family():
            with suppress(psutil.Error):
                if word is None or word in " ".join(process.cmdline()):
                    return process
        return None

    def everything(self) -> set[psutil.Process]:
        """Return all processes of both sides that belong to what is kept running."""
        return {process for side in self.sides.values() for process in side.family()}


def kill(federation: Federation, name: str) -> tuple[int, float]:
    """Kill one part, and wait until nothing is orphaned and all is up again.

    Args:
        federation: The federation, which is up.
        name: Name of the part.

    Returns:
        Number of processes that were orphaned too long, and seconds until all was up.
    """
    before = federation.everything()
    victim = federation.victim(name)
    assert victim is not None
    victim.kill()
    killed = time.monotonic()

    def orphans() -> set[psutil.Process]:
        left = {one for one in before if one.is_running() and _status(one) != psutil.STATUS_ZOMBIE}
        return left - federation.everything()

    stray = 0 if wait_until(lambda: not orphans(), _ORPHAN_SECONDS) else len(orphans())
    if not wait_until(federation.up, _UP_SECONDS):
        raise SystemExit(
            f"after {name} was killed not all came up again; see {federation.home.folder.parent}"
        )
    return stray, time.monotonic() - killed


def run(folder: Path, times: int, seed: int) -> bool:
    """Kill parts of a federation at random; return whether all bounds held.

    Args:
        folder: New folder for everything.
        times: Number of kills.
        seed: Seed of what is killed, and when.
    """
    home, settings = make_cloud(folder / "cloud")
    edge, rng = Home(folder / "ada"), random.Random(seed)
    write_client(folder / "history", items=32)
    enroll(home, "ada", folder / "ada.bundle")
    cloud = [*program("cloud"), "up", str(home.folder)]
    join = [*program("edge"), "join", str(folder / "ada.bundle"), "--folder", str(edge.folder), "--agree"]
    join += ["--history", str(folder / "history" / "history.jsonl")]
    took: dict[str, list[float]] = defaultdict(list)
    strays = 0
    with ExitStack() as kept:
        sides = {
            name: kept.enter_context(Kept(command, folder / f"{name}.log"))
            for name, command in (("cloud", cloud), ("edge", join))
        }
        federation = Federation(home, settings, edge, sides)
        if not wait_until(federation.up, _UP_SECONDS):
            raise SystemExit(f"the federation did not come up; see {folder}")
        for number in range(times):
            time.sleep(rng.uniform(0, 3))
            name = rng.choice(list(_VICTIMS))
            if not wait_until(lambda name=name: federation.victim(name) is not None, _UP_SECONDS):  # type: ignore[misc]
                raise SystemExit(f"{name} is not there; see {folder}")
            stray, seconds = kill(federation, name)
            strays += stray
            took[name].append(seconds)
            print(f"{number + 1:4d} {name:10s} up again after {seconds:5.1f} s, {stray} orphans", flush=True)
    problems = verify(edge.audit).problems
    CloudReleases(home.folder).verify()
    for name, seconds in sorted(took.items()):
        slow = f"up after {median(seconds):.1f} s, at most {max(seconds):.1f} s"
        print(f"{name:10s} {len(seconds):3d} kills, {slow}")
    orphaned = f"{strays} processes orphaned for more than {_ORPHAN_SECONDS:g} s"
    print(f"{orphaned}, {len(problems)} problems in the log")
    return not strays and not problems


def program(which: str) -> list[str]:
    """Return the command that runs `fedperfit-cloud` or `fedperfit-edge` from this checkout.

    Args:
        which: cloud or edge.
    """
    return [sys.executable, "-P", "-c", f"from fedperfit.{which}.cli.main import main; main()"]


def answering(edge: Home) -> bool:
    """Return whether an edge's agent answers its owner."""
    with suppress(grpc.RpcError, FedperfitError), connect(edge.owner) as channel:
        owner_pb2_grpc.OwnerStub(channel).Explain(owner_pb2.ExplainRequest(), timeout=5)
        return True
    return False


def _status(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return str(process.status())
    return str(psutil.STATUS_ZOMBIE)


def main() -> None:
    """Kill at random; exit with 1 where something was orphaned, or a log is not whole."""
    parser = argparse.ArgumentParser(description="Kill what a federation runs, at random.")
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    held = run(Path(mkdtemp(prefix="kills-")), arguments.times, arguments.seed)
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()

"""Five edges over a real network with secure sums: one is killed in each stage of a round, then the cloud.

Makes a cloud and five edges in a new folder, and has runs of two rounds in which an edge is killed before
and after it contributes, and before and after it tells a sum; at last what executes the run is killed, and
goes on.
Needs nginx and bubblewrap, and a machine that is quiet.

    python -m tests.attacks.by_hand.sums
    python -m tests.attacks.by_hand.sums --stages after_it_told_its_sum
"""

import argparse
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import psutil
from tests.attacks.by_hand.kills import Kept, answering, program
from tests.cloud.deployment.clouds import make_cloud
from tests.edge.edge_clients import write_client

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.deployment.up import superlink_ready
from fedperfit.cloud.enrolment.inviting import enroll
from fedperfit.edge.audit.files import events
from fedperfit.edge.audit.totals import SENT
from fedperfit.edge.audit.verification import verify
from fedperfit.edge.deployment.home import Home
from fedperfit.protocol.system.errors import FedperfitError
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.trust.published import release_file

PEOPLE = ("ada", "ben", "cyd", "dan", "eve")
SUMS = {
    "update-basis": "random",
    "transport-dtype": "sign",
    "secure-aggregation": "committee",
    "committee-size": 5,
    "committee-corrupt": 1,
    "committee-threshold": 4,
    "fewest-contributors": 3,
    "clients": 5,
    "rounds": 2,
    "deadline-seconds": 150.0,
}
_SECONDS = 600.0
_PAUSE = 0.02
"""Seconds between two looks at what an edge has sent."""
_ON_ITS_WAY = 15.0
"""Seconds that an answer may take from the log of its machine to the cloud."""


@dataclass
class Edge:
    """One person's machine, which is kept running."""

    home: Home
    kept: Kept
    before: Mapping[str, int] = field(default_factory=dict)
    """Messages by kind that had left when the run began."""

    def sent(self) -> dict[str, int]:
        """Count the messages that left, by kind."""
        counts: dict[str, int] = {}
        with suppress(FedperfitError, OSError):
            for event in events(self.home.audit):
                if event.get("event") == SENT:
                    counts[event["call"]] = counts.get(event["call"], 0) + 1
        return counts

    def new(self, call: str) -> int:
        """Count the messages of one kind that left in this run."""
        return self.sent().get(call, 0) - self.before.get(call, 0)

    def signal(self, number: int) -> None:
        """Send a signal to the agent."""
        for process in self.kept.family():
            with suppress(psutil.Error):
                if process.cmdline()[-2:] == ["agent", str(self.home.folder)]:
                    process.send_signal(number)

    def hold_after(self, call: str) -> None:
        """Stop the agent as soon as a message of one kind has left."""
        until(lambda: self.new(call) > 0, f"{self.home.folder.name} has sent no {call}")
        self.signal(signal.SIGSTOP)

    def release(self) -> None:
        """Let a stopped agent go on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill all processes of the machine; they are started again."""
        for process in self.kept.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()


Edges = Sequence[Edge]


def until(holds: Callable[[], bool], problem: str, seconds: float = _SECONDS) -> None:
    """Wait for something; ends the program with what is wrong if it does not come."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(problem)
        time.sleep(_PAUSE)


def before_it_contributes(edges: Edges) -> None:
    """Kill the first edge while the others contribute."""
    victim, *others = edges
    victim.hold_after("status")
    until(lambda: all(edge.new("contribute") for edge in others), "the others did not contribute")
    victim.kill()


def after_it_contributed(edges: Edges) -> None:
    """Kill the first edge when it has contributed and another one has not."""
    victim, last, *_ = edges
    last.hold_after("status")
    until(lambda: victim.new("contribute") > 0, "it did not contribute")
    time.sleep(_ON_ITS_WAY)
    victim.kill()
    last.release()


def before_it_tells_its_sum(edges: Edges) -> None:
    """Kill the first edge when it has contributed, and another member has told its sum."""
    victim, last, *others = edges
    last.hold_after("status")
    victim.hold_after("contribute")
    until(lambda: all(edge.new("contribute") for edge in others), "the others did not contribute")
    last.release()
    until(lambda: any(edge.new("sum") for edge in (last, *others)), "no member told its sum")
    victim.kill()


def after_it_told_its_sum(edges: Edges) -> None:
    """Kill the first edge as soon as it has told its sum."""
    until(lambda: edges[0].new("sum") > 0, "it told no sum")
    edges[0].kill()


STAGES: dict[Callable[[Edges], None], int] = {
    before_it_contributes: 4,
    after_it_contributed: 5,
    before_it_tells_its_sum: 5,
    after_it_told_its_sum: 5,
}
"""Addends of the first round's sum, by what is done in it."""


@dataclass
class Federation:
    """A cloud and five edges that are kept running."""

    home: CloudHome
    settings: CloudSettings
    cloud: Kept
    edges: list[Edge]
    runs: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Commands that were begun."""

    def end(self) -> None:
        """Leave nobody stopped, and no command running."""
        for edge in self.edges:
            edge.release()
        for process in self.runs:
            process.kill()
            process.wait()

    def run(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        """Begin a run, or go on with it."""
        until(self.ready, "not all are up, or have the release in force")
        for edge in self.edges:
            if not more:
                edge.before = edge.sent()
        log = (self.home.folder.parent / f"{name}.log").open("ab")
        command = [*program("cloud"), "run", str(self.home.folder), "--name", name, *more]
        self.runs.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return self.runs[-1]

    def ready(self) -> bool:
        """Return whether everybody is up, with the release in force."""
        release = CloudReleases(self.home.folder).in_force()
        assert release is not None
        names = [edge.home.releases / release_file(release.version) for edge in self.edges]
        return all(answering(edge.home) for edge in self.edges) and all(name.exists() for name in names)

    def check(self, name: str, addends: int) -> None:
        """Check that no round was skipped, and whose sum the first one is."""
        folder = self.home.runs / name
        skipped = [report["round"] for report in read_json(folder / "rounds.json") if report["skipped"]]
        kept = read_json(folder / "checkpoints" / "train" / "sum-0001.json")
        if skipped or kept["addends"] != addends or max(map(abs, kept["total"])) > addends:
            raise SystemExit(f"{name}: rounds {skipped} were skipped, {kept['addends']} in the first sum")
        if list((folder / "checkpoints" / "train").glob("sealed-*")):
            raise SystemExit(f"{name}: what was sealed is still there")

    def kill_run(self) -> None:
        """Kill what executes the run."""
        for process in self.cloud.family():
            with suppress(psutil.Error):
                if "flwr-serverapp" in " ".join(process.cmdline()):
                    process.kill()


def kill_an_edge(federation: Federation, stage: Callable[[Edges], None], addends: int) -> None:
    """Run with an edge killed in one stage of the first round."""
    name = stage.__name__.replace("_", "-")
    process = federation.run(name)
    stage(federation.edges)
    if process.wait(_SECONDS):
        raise SystemExit(f"{name}: the run failed; see {name}.log")
    federation.check(name, addends)
    print(f"{name}: no round was skipped, {addends} in the first sum", flush=True)


def kill_the_cloud(federation: Federation) -> None:
    """Kill the run when three of five members have told their sum, and go on with it."""
    process = federation.run("killed-cloud")
    ada, ben, cyd, dan, eve = federation.edges
    ben.hold_after("status")
    ada.hold_after("contribute")
    cyd.hold_after("contribute")
    until(lambda: all(edge.new("contribute") for edge in (dan, eve)), "the others did not contribute")
    ben.release()
    until(lambda: all(edge.new("sum") for edge in (ben, dan, eve)), "three members told no sum")
    federation.kill_run()
    if not process.wait(_SECONDS):
        raise SystemExit("the killed run did not fail")
    for edge in (ada, cyd):
        edge.release()
    if federation.run("killed-cloud", "--resume").wait(_SECONDS):
        raise SystemExit("the resumed run failed; see killed-cloud.log")
    federation.check("killed-cloud", 5)
    contributed = [edge.new("contribute") for edge in federation.edges]
    if contributed != [2] * 5:
        raise SystemExit(f"contributions of two rounds: {contributed}")
    print("killed-cloud: the same sum, and nobody contributed twice", flush=True)


def run(folder: Path, stages: Sequence[str]) -> None:
    """Make the federation, and kill one after the other; ends the program with what is wrong.

    Args:
        folder: New folder for everything.
        stages: Names of what is done; all where there are none.
    """
    home, settings = make_cloud(folder / "cloud", **SUMS)
    with ExitStack() as kept:
        cloud = kept.enter_context(Kept([*program("cloud"), "up", str(home.folder)], folder / "cloud.log"))
        until(lambda: _up(home, settings), "the cloud did not come up")
        edges = []
        for name in PEOPLE:
            write_client(folder / f"{name}-history", seed=name, items=32)
            enroll(home, name, folder / f"{name}.bundle")
            own = folder / f"{name}-history"
            join = [*program("edge"), "join", str(folder / f"{name}.bundle"), "--agree"]
            join += ["--history", str(own / "history.jsonl"), "--questions", str(own / "questions.jsonl")]
            join += ["--folder", str(folder / name), "--fetch-seconds", "2"]
            edges.append(Edge(Home(folder / name), kept.enter_context(Kept(join, folder / f"{name}.log"))))
        until(lambda: all(answering(edge.home) for edge in edges), "not all edges came up")
        subprocess.run([*program("cloud"), "release", "members", str(home.folder)], check=True)
        federation = Federation(home, settings, cloud, edges)
        kept.callback(federation.end)
        for stage, addends in STAGES.items():
            if not stages or stage.__name__ in stages:
                kill_an_edge(federation, stage, addends)
        if not stages or kill_the_cloud.__name__ in stages:
            kill_the_cloud(federation)
    CloudReleases(home.folder).verify()
    problems = {edge.home.folder.name: verify(edge.home.audit).problems for edge in edges}
    if any(problems.values()):
        raise SystemExit(f"logs are not whole: {problems}")
    print("all logs and the chain of releases are whole")


def _up(home: CloudHome, settings: CloudSettings) -> bool:
    with suppress(FedperfitError):
        return superlink_ready(home, settings)
    return False


def main() -> None:
    """Run in a new folder; exit with 1 where a round was skipped, or somebody answered twice."""
    parser = argparse.ArgumentParser(description="Kill each in a federation with secure sums.")
    names = [stage.__name__ for stage in (*STAGES, kill_the_cloud)]
    parser.add_argument("--stages", nargs="+", choices=names, default=[], help="only these (default: all)")
    stages = parser.parse_args().stages
    folder = Path(mkdtemp(prefix="sums-"))
    print(f"in {folder}", flush=True)
    run(folder, stages)


if __name__ == "__main__":
    main()

"""Rounds of sums among five deployed edges, from the cloud through ClientApps and bridges and back."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Error, Message, RecordDict
from tests.cloud.fake_grid import FakeGrid
from tests.edge.deployment.deployments import CLOUD, TRAINING, agree, deployed
from tests.edge.deployment.test_deployed_basis import agreed, basis_of, request
from tests.edge.edge_clients import write_client

from fedperfit.cloud.clients.exchange import Exchange
from fedperfit.cloud.privacy.settings import PrivacySettings
from fedperfit.cloud.rounds.checkpoint import Checkpoints
from fedperfit.cloud.rounds.committee_settings import CommitteeSettings
from fedperfit.cloud.rounds.federation import Federation
from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.cloud.rounds.sums import SecureSums
from fedperfit.edge import client_app
from fedperfit.edge.agent.coordinates import contribute_alone
from fedperfit.edge.agent.history import read_history
from fedperfit.edge.deployment.deployed import Deployed
from fedperfit.edge.deployment.server import serving
from fedperfit.edge.sums.party import ANSWERED, make_keys
from fedperfit.protocol.messages.keys import CONTRIBUTE_TYPE, SUM_TYPE
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.coordinate_packing import Agreement, unpack_update
from fedperfit.protocol.trust.release import Release

SEEDS = ("ada", "ben", "cyd", "dan", "gus")
COMMITTEE = {
    "committee_size": 5,
    "committee_corrupt": 1,
    "committee_threshold": 4,
    "fewest_contributors": 3,
    "fewest_apart": 1,  # five people are too few for a group to be told apart from
}


class Machines:
    """Deployed edges that can be started again, or lost."""

    def __init__(self, stack: ExitStack, folder: Path, header: Any) -> None:
        self.basis = basis_of(header)
        self.folders = {}
        for seed in SEEDS:
            place = write_client(folder / seed, seed=seed, items=8, questions=2)
            agree(place, agreed(self.basis, **COMMITTEE, clipping_norm=0.5))
            self.folders[read_history(place).name] = place
        keys = {name: make_keys(place).public for name, place in self.folders.items()}
        self.directory = Directory(keys)
        start = Coordinates.zero(self.basis).shift()
        self.release = Release.first(start, header, CLOUD, members=self.directory)
        self.lost: set[tuple[str, str, int]] = set()
        self.restarted: set[tuple[str, str]] = set()
        self.stacks = {name: stack.enter_context(ExitStack()) for name in self.folders}
        self.edges: dict[str, Deployed] = {name: self.start(name) for name in self.folders}

    def start(self, name: str) -> Deployed:
        stack = self.stacks[name]
        stack.close()
        edge = stack.enter_context(deployed(self.folders[name]))
        edge.releases.accept(self.release.to_bytes())
        stack.enter_context(serving(edge, edge.home))
        return edge

    def answer(self, client: str, message: Message) -> list[Message]:
        kind, number = message.metadata.message_type, int(message.metadata.group_id)
        if (client, kind, number) in self.lost:
            return [Message(Error(0, "gone"), reply_to=message)]
        config = {"bridge": str(self.edges[client].home.bridge)}
        context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
        reply = client_app.app(message, context)
        if (client, kind) in self.restarted:
            self.edges[client] = self.start(client)
        return [reply]


def votes(edge: Deployed, basis: Any) -> torch.Tensor:
    """What an open update of a first round would have told."""
    told = contribute_alone(edge.agent, request(basis), TRAINING).update
    return unpack_update(told, Agreement(basis.digest, "sign", 0), basis.numbers).sign()


def test_five_edges_sum_up_while_one_is_killed_in_each_stage(tmp_path, header):
    with ExitStack() as stack:
        machines = Machines(stack, tmp_path, header)
        names = sorted(machines.folders)
        expected = torch.stack([votes(edge, machines.basis) for edge in machines.edges.values()]).sum(0)
        machines.restarted = {(names[0], CONTRIBUTE_TYPE), (names[1], SUM_TYPE)}
        machines.lost = {(names[2], SUM_TYPE, 1), (names[3], CONTRIBUTE_TYPE, 2), (names[4], SUM_TYPE, 2)}
        grid = FakeGrid(dict(enumerate(names, 1)), machines.answer)
        ledger, place = Ledger(tmp_path / "ledger.jsonl"), tmp_path / "checkpoints"
        exchange = Exchange(grid, ledger, grid.clients)
        settings = CommitteeSettings(secure_aggregation="committee", **COMMITTEE)
        job = Federation(
            exchange=exchange,
            checkpoints=Checkpoints(place),
            ledger=ledger,
            header=header,
            settings=FederationSettings(rounds=2, deadline_seconds=60.0, dtype="sign"),
            training=TRAINING,
            basis=machines.basis,
            sums=SecureSums(
                settings,
                machines.directory,
                exchange,
                place,
                votes=True,
                privacy=PrivacySettings(),
                deadline=60.0,
                release=machines.release.digest,
            ),
        )
        job.train(names, lambda report: None)
        first, second = job.history
        sent = {name: [one.call for one in edge.record.messages()] for name, edge in machines.edges.items()}
        told = [len(list((place / ANSWERED).iterdir())) for place in machines.folders.values()]
    assert [report.skipped for report in job.history] == [False, False]
    assert first.admitted == names
    assert second.admitted == [name for name in names if name != names[3]]
    checkpoint = Checkpoints(place)._read(Checkpoints(place).path(1))
    assert torch.equal(torch.tensor(checkpoint.numbers), (0.02 * expected.double() / 5).float())
    assert sent[names[0]] == ["contribute", "sum", "contribute", "sum"]
    assert sorted(told) == [1, 1, 2, 2, 2]

"""Rounds of which the cloud sees sums alone, over scripted clients that seal and answer as edges do."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, RecordDict
from tests.cloud.fake_grid import HEADER, TRAINING, FakeGrid
from tests.cloud.rounds.test_coordinate_rounds import BASIS, drawn

from fedperfit.cloud.clients.exchange import Exchange
from fedperfit.cloud.job.settings import JobSettings
from fedperfit.cloud.privacy.ledger import PrivacyLedger
from fedperfit.cloud.privacy.rounds import PrivateRounds
from fedperfit.cloud.privacy.settings import PrivacySettings
from fedperfit.cloud.rounds.checkpoint import Checkpoints
from fedperfit.cloud.rounds.committee_settings import CommitteeSettings
from fedperfit.cloud.rounds.federation import Federation
from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.cloud.rounds.sums import SecureSums
from fedperfit.edge.records import coordinate_reply, envelopes_of, round_of, sum_reply
from fedperfit.edge.sums.party import SumParty, make_keys
from fedperfit.edge.sums.requests import SumRequest, sealed_update, tell_sum
from fedperfit.protocol.messages.broadcast import broadcast
from fedperfit.protocol.messages.keys import SETTINGS_RECORD, SUM_RECORD, SUM_TYPE
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.messages.settings import CoordinateSettings
from fedperfit.protocol.messages.sums import SumSettings
from fedperfit.protocol.presets import read_preset
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.secure_sums.session import draw_committee
from fedperfit.protocol.shift.coordinate_packing import unpack_coordinates
from fedperfit.protocol.system.errors import InputError, TooFewClients

CLIENTS = {number: f"c{number}" for number in range(1, 10)}
NAMES = sorted(CLIENTS.values())
SETTINGS = CommitteeSettings(
    secure_aggregation="committee",
    committee_size=7,
    committee_corrupt=1,
    committee_threshold=5,
    fewest_contributors=3,
)
Change = Callable[[str, Message, Message], Message]


class SealedEdges:
    """Clients with keys and folders; `lost` names what does not answer, as "c1" or "c1/sum"."""

    def __init__(self, folder: Path, lost: Sequence[str] = (), change: Change | None = None) -> None:
        keys = {name: make_keys(folder / name) for name in NAMES}
        self.directory = Directory({name: key.public for name, key in keys.items()})
        self.folder, self.lost, self.change = folder, set(lost), change
        self.asked: list[str] = []
        self.release = ""

    def __call__(self, client: str, message: Message) -> list[Message]:
        is_sum = message.metadata.message_type == SUM_TYPE
        if f"{client}{'/sum' if is_sum else ''}" in self.lost:
            return [Message(Error(0, "gone"), reply_to=message)]
        if is_sum:
            self.asked.append(client)
        try:
            reply = self._sum(client, message) if is_sum else self._update(client, message)
        except InputError as error:
            return [Message(Error(0, str(error)), reply_to=message)]
        return [reply if self.change is None else self.change(client, message, reply)]

    def party(self, client: str) -> SumParty:
        return SumParty(self.folder / client, client, self.directory, self.release)

    def _update(self, client: str, message: Message) -> Message:
        config = dict(message.content[SETTINGS_RECORD])
        _, agreement = unpack_coordinates(broadcast(message), BASIS, config["codec"])
        terms = SumSettings.from_config(config)
        change = drawn(client, round_of(message))
        return coordinate_reply(
            message,
            1,
            None,
            sealed_update(self.party(client), change, terms, agreement, terms.sum_broadcast, 0),
        )

    def _sum(self, client: str, message: Message) -> Message:
        config = dict(message.content[SETTINGS_RECORD])
        asked = SumRequest(
            SumSettings.from_config(config),
            CoordinateSettings.from_config(config),
            round_of(message),
            *envelopes_of(message),
        )
        answer = tell_sum(self.party(client), asked)
        return sum_reply(message, answer.total, answer.bad)


def sealed(
    folder: Path,
    edges: SealedEdges,
    codec: str = "sign",
    private: bool = False,
    lists: Path | None = None,
    at: str = "checkpoints",
    **changes: object,
):
    grid, ledger = FakeGrid(CLIENTS, edges), Ledger(folder / "ledger.jsonl")
    exchange, place = Exchange(grid, ledger, CLIENTS), folder / at
    promise = PrivacySettings(target_epsilon=8.0 if private else 0.0)
    sums = SecureSums(
        SETTINGS,
        edges.directory,
        exchange,
        place,
        votes=codec == "sign",
        privacy=promise,
        deadline=5.0,
        release=edges.release,
        lists=lists,
    )
    return Federation(
        exchange=exchange,
        checkpoints=Checkpoints(place),
        ledger=ledger,
        header=HEADER,
        settings=FederationSettings(**{"rounds": 1, "deadline_seconds": 5.0, "dtype": codec, **changes}),
        training=TRAINING,
        basis=BASIS,
        privacy=PrivateRounds(promise, PrivacyLedger(folder), place) if private else None,
        sums=sums,
    )


def train(job: Federation) -> list[RoundReport]:
    reports: list[RoundReport] = []
    job.train(NAMES, reports.append)
    return reports


def numbers(job: Federation) -> torch.Tensor:
    checkpoint = job.checkpoints.latest()
    assert checkpoint is not None
    return torch.tensor(checkpoint.numbers)


def votes(names: Sequence[str], round: int = 1) -> torch.Tensor:
    return torch.stack([drawn(name, round).sign() for name in names]).double()


def clipped(names: Sequence[str]) -> torch.Tensor:
    return torch.stack([drawn(name, 1).double() / max(float(drawn(name, 1).norm()), 0.5) for name in names])


def members(edges: SealedEdges, job: Federation) -> tuple[str, ...]:
    assert job.sums is not None
    return draw_committee(job.sums.directory, job.sums.release, job.sums.settings.committee.size)


def test_a_round_is_the_exact_mean_of_the_votes(tmp_path):
    edges = SealedEdges(tmp_path)
    job = sealed(tmp_path, edges)
    (report,) = train(job)
    assert torch.equal(numbers(job), (0.02 * votes(NAMES).sum(dim=0) / 9).float())
    assert report.admitted == NAMES
    assert (report.items, report.loss) == (0, None)
    assert sorted(edges.asked) == sorted(members(edges, job))


@pytest.mark.parametrize(("codec", "step"), [("float32", 2**-20), ("int8", 1 / 128), ("int4", 1 / 8)])
def test_other_codecs_are_exact_to_their_rounding(tmp_path, codec, step):
    job = sealed(tmp_path, SealedEdges(tmp_path), codec)
    train(job)
    expected = 0.5 * clipped(NAMES).mean(dim=0)
    assert float((numbers(job) - expected).abs().max()) < 0.5 * step


def test_lost_contributors_and_members_change_nothing_but_who_is_in_the_sum(tmp_path):
    edges = SealedEdges(tmp_path)
    job = sealed(tmp_path, edges)
    assert job.sums is not None
    job.sums.begin(BASIS, "sign", 9)
    first, second = members(edges, job)[:2]
    edges.lost = {"c2", "c5", "c7", f"{first}/sum", f"{second}/sum"}
    (report,) = train(job)
    left = [name for name in NAMES if name not in ("c2", "c5", "c7")]
    assert report.admitted == left
    assert torch.equal(numbers(job), (0.02 * votes(left).sum(dim=0) / 6).float())


def test_who_alone_was_lost_takes_others_along_so_that_no_two_sums_tell_of_one(tmp_path):
    """Two others, as one of the three may be the cloud's."""
    whole, less = SealedEdges(tmp_path), SealedEdges(tmp_path, lost=["c2"])
    whole.release = less.release = "ab" * 32
    train(sealed(tmp_path, whole))
    (again,) = train(sealed(tmp_path, less, lists=tmp_path / "checkpoints", at="again"))
    assert again.admitted == ["c1", *NAMES[2:-2]]
    assert all("fewest-apart=2" in again.dropped[name] for name in ("c8", "c9"))
    assert "no reply" not in again.dropped["c9"]
    assert again.skipped is False


def test_under_another_release_people_are_told_apart_anew(tmp_path):
    whole, less = SealedEdges(tmp_path), SealedEdges(tmp_path, lost=["c2"])
    whole.release, less.release = "ab" * 32, "cd" * 32
    train(sealed(tmp_path, whole))
    (again,) = train(sealed(tmp_path, less, lists=tmp_path / "checkpoints", at="again"))
    assert again.admitted == ["c1", *NAMES[2:]]


@pytest.mark.parametrize("stage", ["contributors", "members"])
def test_a_round_with_too_few_is_skipped(tmp_path, stage, caplog):
    gone = NAMES[:7] if stage == "contributors" else [f"{name}/sum" for name in NAMES[:5]]
    job = sealed(tmp_path, SealedEdges(tmp_path, gone))
    with caplog.at_level(logging.WARNING):
        (report,) = train(job)
    assert report.skipped
    assert float(numbers(job).abs().max()) == 0
    assert (
        "the sum would tell it apart" if stage == "contributors" else "members answered, 5 are needed"
    ) in caplog.text


def test_members_that_told_nothing_in_time_are_asked_again_while_too_few_have(tmp_path):
    edges = SealedEdges(tmp_path)
    job = sealed(tmp_path, edges)
    assert job.sums is not None
    job.sums.begin(BASIS, "sign", 9)
    killed, *slow = members(edges, job)[:3]

    def once(client: str, message: Message, reply: Message) -> Message:
        """Lose the first sum of the slow, and that of a member which is killed once it has told it."""
        if message.metadata.message_type == SUM_TYPE and client in (killed, *slow) and client not in lost:
            lost.append(client)
            return Message(Error(0, "gone"), reply_to=message)
        return reply

    lost: list[str] = []
    edges.change = once
    (report,) = train(job)
    assert report.skipped is False
    assert sorted(lost) == sorted([killed, *slow])
    assert torch.equal(numbers(job), (0.02 * votes(NAMES).sum(dim=0) / 9).float())
    assert {edges.asked.count(name) for name in lost} == {2}
    assert len(edges.asked) == 7 + 3, "who has told is not asked again"
    entries = [entry for entry in job.ledger.entries() if entry.round == 1]
    assert report.bytes_up == sum(entry.message for entry in entries if entry.direction == "up")


def test_a_lying_member_is_named_and_left_out(tmp_path, caplog):
    liar: list[str] = []

    def lie(client: str, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == SUM_TYPE and liar in ([], [client]):
            liar[:] = [client]
            told = bytearray(reply.content[SUM_RECORD]["sum"])
            told[0] = (told[0] + 1) % 251
            reply.content[SUM_RECORD]["sum"] = bytes(told)
        return reply

    job = sealed(tmp_path, SealedEdges(tmp_path, change=lie))
    with caplog.at_level(logging.WARNING):
        train(job)
    assert torch.equal(numbers(job), (0.02 * votes(NAMES).sum(dim=0) / 9).float())
    assert f"the sum of {liar[0]} contradicts the others'" in caplog.text


def test_a_bad_share_spoils_the_round_and_names_its_sender(tmp_path, caplog):
    def spoil(client: str, message: Message, reply: Message) -> Message:
        if client == "c4" and message.metadata.message_type != SUM_TYPE:
            update = bytearray(reply.content["update"]["update"])
            for place in range(7):  # one bit of each share, behind tag, key and signature
                size = (len(update) - 100) // 7
                update[100 + place * size] ^= 1
            reply.content["update"]["update"] = bytes(update)
        return reply

    job = sealed(tmp_path, SealedEdges(tmp_path, change=spoil))
    with caplog.at_level(logging.WARNING):
        (report,) = train(job)
    assert report.skipped
    assert "it cannot open the shares of c4" in caplog.text


@pytest.mark.parametrize(
    ("record", "key", "value", "said"),
    [
        ("update", "update", b"short", "another basis"),
        ("update", "items", 7, "tells more"),
        ("update", "loss", 0.5, "unknown key"),
    ],
)
def test_a_reply_that_is_malformed_or_tells_of_one_client_is_dropped(tmp_path, record, key, value, said):
    def lie(client: str, message: Message, reply: Message) -> Message:
        if client == "c4" and message.metadata.message_type != SUM_TYPE:
            values = {**reply.content[record], key: value}
            return Message(RecordDict({record: ConfigRecord(values)}), reply_to=message)
        return reply

    job = sealed(tmp_path, SealedEdges(tmp_path, change=lie))
    (report,) = train(job)
    assert said in report.dropped["c4"]
    assert torch.equal(numbers(job), (0.02 * votes(report.admitted).sum(dim=0) / 8).float())


def test_noise_of_a_promise_is_added_to_the_sum_whoever_is_lost(tmp_path):
    edges = SealedEdges(tmp_path, ["c2", "c5"])
    job = sealed(tmp_path, edges, private=True)
    train(job)
    left = [name for name in NAMES if name not in ("c2", "c5")]
    assert job.privacy is not None
    assert torch.equal(numbers(job), job.privacy.change_of_sum(1, votes(left).sum(dim=0)).float())
    assert not torch.equal(numbers(job), (0.02 * votes(left).sum(dim=0) / 9).float())


def test_fewer_clients_than_a_sum_needs_are_no_federation(tmp_path):
    job = sealed(tmp_path, SealedEdges(tmp_path))
    with pytest.raises(TooFewClients, match="fewest-contributors=3: only 2 clients"):
        job.train(NAMES[:2], lambda report: None)


SECURE = {
    "update-basis": "random",
    "transport-dtype": "sign",
    "secure-aggregation": "committee",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"update-basis": "none", "transport-dtype": "float32"}, "update-basis=none looks at single"),
        ({"update-basis": "federated"}, "update-basis=federated looks at single"),
        ({"aggregation": "median"}, "aggregation=median looks at single"),
        ({"directions": True}, "directions looks at single"),
        ({"layers": "auto"}, "auto looks at single"),
        ({"transport-dtype": "bfloat16"}, "bfloat16 is no fixed point"),
        ({"committee-threshold": 9}, "committee-threshold=9: expected 10 to 15"),
    ],
)
def test_what_looks_at_single_clients_is_refused_in_one_line(changes, said):
    values = {
        key: value for key, value in read_preset("quickstart").items() if key in JobSettings.setting_keys()
    }
    assert JobSettings.from_flat(values | SECURE).secure
    with pytest.raises(InputError, match=said) as error:
        JobSettings.from_flat(values | SECURE | changes)
    assert "\n" not in str(error.value)

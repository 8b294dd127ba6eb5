"""Secure sums at a deployed edge: as contributor and as member, over the bridge and as Flower's messages."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from tests.edge.deployment.deployments import CLOUD, TRAINING, agree, deployed, served
from tests.edge.deployment.test_deployed_basis import agreed, basis_of, packed_for, request
from tests.edge.edge_clients import write_client
from tests.leaks import coded, found_in

from fedperfit.edge import client_app
from fedperfit.edge.agent.consent import Consent, write_consent
from fedperfit.edge.agent.history import read_history
from fedperfit.edge.audit.files import events
from fedperfit.edge.consent.refusal import Refused
from fedperfit.edge.deployment.deployed import Deployed
from fedperfit.edge.deployment.endpoint import BRIDGE_KEY
from fedperfit.edge.sums.party import KEYS, AlreadyAnswered, TooFewApart, make_keys
from fedperfit.edge.sums.requests import SumRequest
from fedperfit.protocol.messages.keys import (
    BAD_KEY,
    BASIS_KEY,
    BASIS_RECORD,
    CLIENTS_KEY,
    ENVELOPES_KEY,
    ENVELOPES_RECORD,
    ITEMS_KEY,
    ROUND_KEY,
    SETTINGS_RECORD,
    SHIFT_KEY,
    SHIFT_RECORD,
    SUM_KEY,
    SUM_RECORD,
    UPDATE_KEY,
    UPDATE_RECORD,
)
from fedperfit.protocol.messages.settings import CoordinateSettings
from fedperfit.protocol.messages.sums import SumSettings, broadcast_digest, session_of
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc
from fedperfit.protocol.secure_sums.keys import Directory, SumKeys
from fedperfit.protocol.secure_sums.sealing import contribute, envelopes, open_share
from fedperfit.protocol.secure_sums.sharing import reconstruct
from fedperfit.protocol.shift.coordinate_packing import TAG_BYTES, Agreement, unpack_update
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.flower_internals import identify_process
from fedperfit.protocol.trust.release import Release

COMMITTEE = {
    "committee_size": 5,
    "committee_corrupt": 1,
    "committee_threshold": 4,
    "fewest_contributors": 3,
    "clipping_norm": 0.5,
}


def alive() -> bool:
    return True


class Cloud:
    """Five enrolled clients, of whom Ada is deployed, and what their cloud asks."""

    def __init__(self, folder: Path, header: Any) -> None:
        self.folder, self.header, self.basis = folder, header, basis_of(header)
        self.name = read_history(folder).name
        self.keys = {name: SumKeys.new() for name in ("bob", "cyd", "dan", "eve")}
        self.keys[self.name] = make_keys(folder)
        self.directory = Directory({name: keys.public for name, keys in self.keys.items()})
        self.release = self.named(self.directory)
        self.terms = SumSettings(
            sum_run="ab" * 16,
            sum_broadcast=broadcast_digest(request(self.basis).packed, TRAINING),
            sum_numbers=self.basis.numbers,
            sum_addends=5,
            **COMMITTEE,
        )
        self.wanted = CoordinateSettings(basis=self.basis.digest, codec="sign")
        agree(folder, self.policy())

    def policy(self, **changes: object) -> Any:
        return agreed(self.basis, **{**COMMITTEE, **changes})

    def named(self, directory: Directory) -> Release:
        shift = Shift.identity(self.header.shape, seed=0)
        return Release.first(shift, self.header, CLOUD, members=directory)

    def session(self, terms: SumSettings | None = None, directory: Directory | None = None) -> Any:
        used = directory or self.directory
        return session_of(terms or self.terms, self.wanted, 1, self.release.digest, used)

    def asked(self, **terms: object) -> Any:
        return replace(request(self.basis), sums=self.terms.replace(**terms))

    def sum(
        self, names: tuple[str, ...] = ("bob", "cyd", "dan"), session: Any = None, **terms: object
    ) -> Any:
        """A request to Ada for the sum of votes that are all one."""
        told, values = session or self.session(), np.ones(self.basis.numbers, np.int64)
        place = self.session().place(self.name)
        sealed = [envelopes(contribute(values, told, n, self.keys[n]), told, n)[place] for n in names]
        return SumRequest(self.terms.replace(**terms), self.wanted, 1, names, tuple(sealed))


@pytest.fixture
def cloud(tmp_path: Path, header: Any) -> Cloud:
    return Cloud(write_client(tmp_path / "ada", items=8, questions=2), header)


def enrolled(edge: Deployed, cloud: Cloud) -> Deployed:
    edge.releases.accept(cloud.release.to_bytes())
    return edge


def bridged(cloud: Cloud, asked: SumRequest) -> Any:
    return bridge_pb2.SumRequest(
        terms=bridge_pb2.SumTerms(**vars(asked.terms)),
        coordinates=bridge_pb2.Coordinates(**vars(asked.wanted)),
        round=asked.round,
        clients=asked.clients,
        envelopes=asked.envelopes,
    )


def test_a_sealed_round_tells_the_members_together_what_an_open_one_would_have(cloud):
    agree(cloud.folder, agreed(cloud.basis))
    with deployed(cloud.folder) as edge:
        opened = edge.contribute_coordinates(request(cloud.basis), TRAINING, alive).update
    expected = unpack_update(opened, Agreement(cloud.basis.digest, "sign", 0), cloud.basis.numbers)
    agree(cloud.folder, cloud.policy())
    asked = bridge_pb2.ContributeRequest(
        shift=packed_for(cloud.basis),
        training=bridge_pb2.Training(**vars(TRAINING)),
        coordinates=bridge_pb2.Coordinates(**vars(cloud.wanted)),
        basis=cloud.basis.to_bytes(),
        sums=bridge_pb2.SumTerms(**vars(cloud.terms)),
    )
    with deployed(cloud.folder) as edge, served(enrolled(edge, cloud)) as (channel, _):
        told = bridge_pb2_grpc.BridgeStub(channel).Contribute(asked)
        (sent,) = edge.record.messages(0, 0)
    assert (told.items, told.update, told.HasField("loss")) == (1, b"", False)
    fields = {field.name: field.value for field in sent.fields}
    assert "sealed to the members of a committee" in fields["sealed"]
    session = cloud.session()
    shares = envelopes(told.sealed[TAG_BYTES:], session, cloud.name)
    answers = {
        place: open_share(shares[place], session, cloud.name, member, cloud.keys[member])
        for place, member in enumerate(session.members)
        if member != "eve"
    }
    total, liars = reconstruct(answers, cloud.basis.numbers, session.shape, session.numbers.field)
    assert liars == []
    assert np.array_equal(total, np.sign(expected.numpy()))


def test_an_open_update_is_refused_where_sums_are_agreed_on(cloud, monkeypatch):
    with deployed(cloud.folder) as edge:
        monkeypatch.setattr(
            "fedperfit.edge.deployment.deployed.contribute_alone", lambda *_: pytest.fail("computed")
        )
        with pytest.raises(Refused, match="an open update; agreed are sums of sealed ones alone"):
            edge.contribute_coordinates(request(cloud.basis), TRAINING, alive)
        with pytest.raises(Refused, match="a whole shift"):
            edge.contribute(pack(Shift.identity(cloud.header.shape, seed=0), cloud.header), TRAINING, alive)


def test_other_terms_than_the_agreed_ones_are_refused_to_contributors_and_members(cloud):
    others = {
        "committee_size": 4,
        "committee_corrupt": 2,
        "committee_threshold": 5,
        "clipping_norm": 1e-9,
        "sum_numbers": 1,
        "fewest_contributors": 2,
    }
    with deployed(cloud.folder) as edge:
        enrolled(edge, cloud)
        for name, value in others.items():
            with pytest.raises(Refused, match=f"contribute: .*{value}"):
                edge.contribute_coordinates(cloud.asked(**{name: value}), TRAINING, alive)
            with pytest.raises(Refused, match=f"sum: .*{value}"):
                edge.sums.tell(cloud.sum(**{name: value}))
        stricter = cloud.sum(("bob", "cyd", "dan", "eve"), fewest_contributors=4)
        assert edge.sums.tell(stricter).bad, "a stricter sum is agreed to, and another session"


def test_sums_that_were_not_agreed_to_are_refused(cloud):
    agree(cloud.folder, agreed(cloud.basis))
    with deployed(cloud.folder) as edge:
        enrolled(edge, cloud)
        for ask in (
            lambda: edge.contribute_coordinates(cloud.asked(), TRAINING, alive),
            lambda: edge.sums.tell(cloud.sum()),
        ):
            with pytest.raises(Refused, match="sealed updates; they are not agreed to"):
                ask()
    agree(cloud.folder, cloud.policy(sum_per_day=0))
    with deployed(cloud.folder) as edge, pytest.raises(Refused, match="sum: not agreed to"):
        edge.sums.tell(cloud.sum())


def test_a_member_refuses_few_people_other_rounds_and_more_than_its_budget(cloud):
    agree(cloud.folder, cloud.policy(sum_per_day=1))
    with deployed(cloud.folder) as edge:
        enrolled(edge, cloud)
        for asked, said in (
            (cloud.sum(("bob", "cyd")), "of 2 people, agreed are 3 to 5"),
            (cloud.sum(sum_addends=2), "of 3 people, agreed are 3 to 2"),
            (replace(cloud.sum(), round=0), "round 0 is none"),
            (replace(cloud.sum(), wanted=cloud.wanted.replace(codec="int8")), "agreed is"),
        ):
            with pytest.raises(Refused, match=said):
                edge.sums.tell(asked)
        with pytest.raises(InputError, match="names one twice"):
            edge.sums.tell(cloud.sum(("bob", "cyd", "cyd")))
        with pytest.raises(Refused, match="1 a day are agreed"):
            edge.sums.tell(cloud.sum())


def test_a_round_has_one_answer_also_after_a_restart(cloud):
    asked = cloud.sum()
    agree(cloud.folder, cloud.policy(sum_per_day=4))
    with deployed(cloud.folder) as edge:
        told = enrolled(edge, cloud).sums.tell(asked)
        assert told.total
    with deployed(cloud.folder) as edge:
        for other in (cloud.sum(("bob", "cyd", "eve")), cloud.sum(("bob", "cyd", "dan", "eve")), cloud.sum()):
            with pytest.raises(AlreadyAnswered):
                edge.sums.tell(other)
        assert edge.sums.tell(asked) == told, "not counted again"
        edge.forget()
        with pytest.raises(Refused, match="4 a day are agreed"):
            edge.sums.tell(cloud.sum())
        assert edge.sums.tell(asked) == told


def test_a_member_tells_no_sum_that_differs_from_an_earlier_one_by_one_person(cloud):
    agree(cloud.folder, cloud.policy(fewest_apart=2, sum_per_day=4))
    everybody, one_less = ("bob", "cyd", "dan", "eve"), ("bob", "cyd", "dan")

    def again(names: tuple[str, ...]) -> Any:
        terms = cloud.terms.replace(sum_run="cd" * 16)
        return cloud.sum(names, session=cloud.session(terms), sum_run="cd" * 16)

    with deployed(cloud.folder) as edge:
        assert enrolled(edge, cloud).sums.tell(cloud.sum(everybody)).total
    with deployed(cloud.folder) as edge:
        with pytest.raises(TooFewApart, match="would tell of fewer than 3 people"):
            edge.sums.tell(again(one_less))
        edge.forget()
        with pytest.raises(TooFewApart):
            edge.sums.tell(again(one_less))
        assert edge.sums.tell(again(everybody)).total


def test_two_sums_over_one_list_differ_by_nobody_who_was_shown_another_broadcast(cloud):
    agree(cloud.folder, cloud.policy())
    with deployed(cloud.folder) as edge:
        enrolled(edge, cloud)
        for shown, training in (
            (replace(cloud.asked(), packed=request(cloud.basis, start=0.5).packed), TRAINING),
            (cloud.asked(), TRAINING.replace(seed=TRAINING.seed + 1)),
        ):
            with pytest.raises(InputError, match="another broadcast, or other settings"):
                edge.contribute_coordinates(shown, training, alive)
        other = cloud.terms.replace(sum_broadcast="0" * 64)
        told = edge.sums.tell(cloud.sum(session=cloud.session(other)))
        assert told.total == b"", "what is sealed for another broadcast is opened by no member"
        assert set(told.bad) == {"bob", "cyd", "dan"}


def test_a_member_opens_nothing_of_contributors_who_were_shown_another_list(cloud):
    swapped = Directory({**cloud.directory.keys, "eve": SumKeys.new().public})
    with deployed(cloud.folder) as edge:
        told = enrolled(edge, cloud).sums.tell(cloud.sum(session=cloud.session(directory=swapped)))
    assert (told.total, told.bad) == (b"", ("bob", "cyd", "dan"))


@pytest.mark.parametrize("why", ["no keys", "no release", "no list", "other keys", "unnamed"])
def test_who_is_not_enrolled_for_sums_says_so_in_one_line(cloud, why):
    asked, line = (
        cloud.sum(),
        {
            "no keys": "joined by a version without keys for secure sums",
            "no release": "no release in force names who is enrolled",
            "no list": "no release in force names who is enrolled",
            "other keys": "is enrolled with other keys",
            "unnamed": "is not enrolled for sums",
        },
    )
    others = {name: keys for name, keys in cloud.directory.keys.items() if name != cloud.name}
    if why == "no keys":
        (cloud.folder / KEYS).unlink()
    if why == "no list":
        shift = Shift.identity(cloud.header.shape, seed=0)
        cloud.release = Release.first(shift, cloud.header, CLOUD)
    if why == "other keys":
        cloud.release = cloud.named(Directory({**others, cloud.name: SumKeys.new().public}))
    if why == "unnamed":
        cloud.release = cloud.named(Directory(others))
    with deployed(cloud.folder) as edge:
        if why != "no release":
            enrolled(edge, cloud)
        for ask in (
            lambda: edge.contribute_coordinates(cloud.asked(), TRAINING, alive),
            lambda: edge.sums.tell(asked),
        ):
            with pytest.raises(InputError, match=line[why]) as error:
                ask()
            assert "\n" not in str(error.value)


def flower_sum(cloud: Cloud, clients: list[str], sealed: list[bytes]) -> Message:
    config = cloud.terms.to_config() | cloud.wanted.to_config() | {ROUND_KEY: 1}
    envelopes_record = ConfigRecord({CLIENTS_KEY: clients, ENVELOPES_KEY: sealed})
    records = RecordDict({SETTINGS_RECORD: ConfigRecord({**config}), ENVELOPES_RECORD: envelopes_record})
    return Message(records, 1, "train.sum", ttl=60.0)


def test_the_client_app_passes_sealed_updates_and_sums_on(cloud, monkeypatch):
    identify_process(1, node_id=1)
    data, asked = packed_for(cloud.basis), cloud.sum()
    config = TRAINING.to_config() | cloud.terms.to_config() | cloud.wanted.to_config() | {ROUND_KEY: 1}
    array = Array(dtype="uint8", shape=(len(data),), stype="x", data=data)
    update = RecordDict(
        {
            SHIFT_RECORD: ArrayRecord({SHIFT_KEY: array}),
            SETTINGS_RECORD: ConfigRecord(config),
            BASIS_RECORD: ConfigRecord({BASIS_KEY: cloud.basis.to_bytes()}),
        }
    )
    names, sealed = list(asked.clients), list(asked.envelopes)
    context = Context(1, 1, {BRIDGE_KEY: str(cloud.folder)}, RecordDict(), {})
    with deployed(cloud.folder) as edge, served(enrolled(edge, cloud)) as (channel, _):
        monkeypatch.setattr(client_app, "connect", lambda path: nullcontext(channel))
        contributed = client_app.contribute(Message(update, 1, "train.contribute", ttl=60.0), context)
        spoilt = [sealed[0][:-1] + b"x", *sealed[1:]]
        bad, told, other = (
            client_app.tell_sum(flower_sum(cloud, clients, shares), context)
            for clients, shares in ((names, spoilt), (names, sealed), (["bob", "cyd", "eve"], sealed))
        )
    record = dict(contributed.content[UPDATE_RECORD])
    assert set(record) == {UPDATE_KEY, ITEMS_KEY, ROUND_KEY}, "nothing of one client but that it took part"
    envelopes(record[UPDATE_KEY][TAG_BYTES:], cloud.session(), cloud.name)
    assert dict(bad.content[SUM_RECORD]) == {BAD_KEY: ["bob"], ROUND_KEY: 1}
    answer = dict(told.content[SUM_RECORD])
    assert set(answer) == {SUM_KEY, ROUND_KEY}
    session = cloud.session()
    assert len(answer[SUM_KEY]) == session.columns * session.numbers.field.width
    assert "(AlreadyAnswered)" in str(other.error.reason)


def test_the_owner_sees_what_was_asked_and_what_left_and_may_refuse_it(cloud):
    asked = bridged(cloud, cloud.sum())
    with deployed(cloud.folder) as edge, served(enrolled(edge, cloud)) as (channel, _):
        bridge = bridge_pb2_grpc.BridgeStub(channel)
        bridge.Sum(asked)
        write_consent(cloud.folder, Consent(refused=("sum",)))
        with pytest.raises(grpc.RpcError) as error:
            bridge.Sum(asked)
        assert error.value.details() == "NotConsented"
        sent = list(edge.record.messages(0, 0))
        logged = [event for event in events(edge.home.audit) if event.get("event") == "request"]
    assert [message.call for message in sent] == ["sum", "sum"]
    assert sent[0].fields[0].value == "sum of what others sealed to this machine, as member of a committee"
    settings = logged[0]["settings"]
    size = sum(map(len, asked.envelopes))
    assert settings["envelopes"] == f"3 parts, {size} bytes"
    assert (settings["clients"], settings["fewest_contributors"]) == ("bob cyd dan", 3)


def test_nothing_of_an_update_or_a_private_key_is_in_what_leaves(cloud):
    agree(cloud.folder, agreed(cloud.basis))
    with deployed(cloud.folder) as edge:
        opened = edge.contribute_coordinates(request(cloud.basis), TRAINING, alive).update
    change = unpack_update(opened, Agreement(cloud.basis.digest, "sign", 0), cloud.basis.numbers)
    agree(cloud.folder, cloud.policy())
    with deployed(cloud.folder) as edge:
        sealed = enrolled(edge, cloud).contribute_coordinates(cloud.asked(), TRAINING, alive).update
        told = edge.sums.tell(cloud.sum()).total
    secrets = {"update": opened[TAG_BYTES:], "key": (cloud.folder / KEYS).read_bytes()}
    votes = votes_in_field(cloud, change)
    assert found_in(opened, secrets) == {"update"}, "positive control"
    assert not found_in(sealed + told, secrets | coded(change) | {"votes": votes})


def votes_in_field(cloud: Cloud, change: Any) -> bytes:
    """The votes as elements of the field, as shares would tell them if they were no shares."""
    votes = np.sign(change.numpy()).astype(np.int64)
    field = cloud.session().numbers.field
    return field.to_bytes(votes % field.prime)

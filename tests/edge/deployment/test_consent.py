"""The owner's consent: in force at once, kept, and closed where it cannot be read."""

import re

import grpc
import pytest
from tests.edge.deployment.deployments import PERSONAL, TRAINING, deployed, releases, served, settings
from tests.edge.edge_clients import write_client

from fedperfit.edge.agent.consent import Consent, write_consent
from fedperfit.edge.audit.files import events
from fedperfit.edge.deployment.home import Home
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc, owner_pb2, owner_pb2_grpc


@pytest.fixture
def folder(tmp_path):
    folder = write_client(tmp_path / "ada", items=8, questions=2)
    settings().write(Home(folder))
    return folder


def refused(call, request) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    return str(caught.value.details())


def personalize(release):
    return bridge_pb2.PersonalizeRequest(
        release=release.to_bytes(),
        personal=bridge_pb2.Personal(**vars(PERSONAL)),
        training=bridge_pb2.Training(**vars(TRAINING)),
    )


def test_a_paused_agent_answers_its_owner_alone_until_it_is_resumed(folder, run):
    status, explain = bridge_pb2.StatusRequest(), owner_pb2.ExplainRequest()
    for _ in range(2):  # the second agent finds what the first one left
        with deployed(folder) as edge, served(edge) as (channel, owners):
            bridge, owner = bridge_pb2_grpc.BridgeStub(channel), owner_pb2_grpc.OwnerStub(owners)
            if not owner.Explain(explain).paused:
                assert bridge.Status(status).client
                assert run("pause", folder)[0] == 0
            assert refused(bridge.Status, status) == "Paused"
            told = owner.Explain(explain)
            assert (told.paused, told.refusal.split(": ")[1][:15]) == (True, "you have paused")
            pieces = list(owner.Generate(owner_pb2.GenerateRequest(prompt="a film", max_new_tokens=2)))
            assert pieces[-1].finish
    with deployed(folder) as edge, served(edge) as (channel, owners):
        assert run("resume", folder)[0] == 0
        assert bridge_pb2_grpc.BridgeStub(channel).Status(status).client
        assert not owner_pb2_grpc.OwnerStub(owners).Explain(explain).paused
    noted = [event["paused"] for event in events(edge.home.audit) if event["event"] == "consent"]
    assert noted == [False, True, True, False], "each change, and each start"


def test_a_pause_in_the_middle_keeps_the_answer_here(folder, monkeypatch, header):
    (release,) = releases(header, 1)
    with deployed(folder) as edge, served(edge) as (channel, _):
        compute = edge.contribute

        def contribute(*arguments):
            done = compute(*arguments)
            write_consent(folder, Consent(paused=True))
            return done

        monkeypatch.setattr(edge, "contribute", contribute)
        training = bridge_pb2.Training(**vars(TRAINING))
        request = bridge_pb2.ContributeRequest(shift=release.packed, training=training)
        assert refused(bridge_pb2_grpc.BridgeStub(channel).Contribute, request) == "Paused"
        assert edge.record.totals.refused == 1


def test_one_kind_is_refused_and_the_others_are_answered(folder, run, header):
    (release,) = releases(header, 1)
    with deployed(folder) as edge, served(edge) as (channel, owners):
        bridge, owner = bridge_pb2_grpc.BridgeStub(channel), owner_pb2_grpc.OwnerStub(owners)
        code, said = run("consent", folder, "contribute", "off")
        assert (code, said) == (0, "refused: contribute\n")
        training = bridge_pb2.Training(**vars(TRAINING))
        request = bridge_pb2.ContributeRequest(shift=release.packed, training=training)
        assert refused(bridge.Contribute, request) == "NotConsented"
        assert list(owner.Explain(owner_pb2.ExplainRequest()).not_consented) == ["contribute"]
        assert re.search("the cloud is answered +│ all but contribute", run("explain", folder)[1])
        assert bridge.Personalize(personalize(release)).items == 8
        assert run("consent", folder, "contribute", "on")[1] == "refused: no kind of request\n"
        assert bridge.Contribute(request).items == 8
    assert run("consent", folder, "status", "off")[0] == 2


def test_metrics_stop_and_go_at_once(folder, run, header):
    (release,) = releases(header, 1)
    with deployed(folder) as edge, served(edge) as (channel, owners):
        bridge, owner = bridge_pb2_grpc.BridgeStub(channel), owner_pb2_grpc.OwnerStub(owners)
        assert bridge.Personalize(personalize(release)).HasField("loss"), "the positive control"
        assert run("share-metrics", folder, "off")[0] == 0
        assert not bridge.Personalize(personalize(release)).HasField("loss")
        assert not bridge.Status(bridge_pb2.StatusRequest()).shares_metrics
        assert not owner.Explain(owner_pb2.ExplainRequest()).shares_metrics
        assert run("share-metrics", folder, "on")[0] == 0
        assert bridge.Personalize(personalize(release)).HasField("loss")


@pytest.mark.parametrize(
    "broken", ["{", "[]", '{"paused": 0, "refused": []}', '{"paused": false, "refused": 3}']
)
def test_a_broken_consent_refuses_everything_and_tells_the_owner(folder, broken):
    (folder / "consent.json").write_text(broken)
    with deployed(folder) as edge, served(edge) as (channel, owners):
        bridge, owner = bridge_pb2_grpc.BridgeStub(channel), owner_pb2_grpc.OwnerStub(owners)
        assert refused(bridge.Status, bridge_pb2.StatusRequest()) == "MalformedFileError"
        assert "consent.json" in owner.Explain(owner_pb2.ExplainRequest()).problem

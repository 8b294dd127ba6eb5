"""A deployed edge over its two sockets."""

import json
import stat
import threading
import time
from dataclasses import replace

import grpc
import pytest
import torch
from tests.edge.deployment.deployments import (
    CLOUD,
    PERSONAL,
    TRAINING,
    deployed,
    group,
    policy,
    releases,
    served,
)
from tests.edge.edge_clients import write_client

from fedperfit.edge.audit.rates import Rates
from fedperfit.edge.deployment import services
from fedperfit.edge.deployment.deployed import Deployed
from fedperfit.edge.deployment.fair_lock import Busy
from fedperfit.edge.deployment.home import Home
from fedperfit.edge.engine.slab import Slab
from fedperfit.protocol.messages.settings import FULL_SLOT, Stage
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc, owner_pb2, owner_pb2_grpc
from fedperfit.protocol.shift.packing import pack, unpack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.trust.policy import sign_policy, write_policy
from fedperfit.protocol.trust.signing import SigningKey


@pytest.fixture
def folder(tmp_path):
    return write_client(tmp_path / "ada", items=24, questions=8)


@pytest.fixture
def edge(folder):
    with deployed(folder) as edge:
        yield edge


@pytest.fixture
def stubs(edge):
    with served(edge) as (bridge, owner):
        yield bridge_pb2_grpc.BridgeStub(bridge), owner_pb2_grpc.OwnerStub(owner)


@pytest.fixture
def release(header):
    return releases(header, 1)[0]


def personalize(release, **changed):
    return bridge_pb2.PersonalizeRequest(
        release=release.to_bytes(),
        personal=bridge_pb2.Personal(**vars(PERSONAL)),
        training=bridge_pb2.Training(**vars(TRAINING.replace(**changed))),
    )


def evaluate(release, stage):
    evaluation = bridge_pb2.Evaluation(stage=stage, slot="x", batch_size=8, prompt_form="lamp")
    return bridge_pb2.EvaluateRequest(release=release.to_bytes(), evaluation=evaluation)


def generated(owner, **request):
    *pieces, last = owner.Generate(owner_pb2.GenerateRequest(**request))
    return "".join(piece.text for piece in pieces), last


def test_a_round_a_release_and_an_evaluation(stubs, edge, header, release):
    bridge, owner = stubs
    status = bridge.Status(bridge_pb2.StatusRequest())
    assert (status.task, status.history, status.questions) == ("LaMP_2M", 24, 8)
    packed = pack(Shift.identity(header.shape, seed=1), header)
    training = bridge_pb2.Training(**vars(TRAINING))
    update = bridge.Contribute(bridge_pb2.ContributeRequest(shift=packed, training=training))
    assert unpack(update.update)[1] == header
    assert update.items == 24
    assert (
        owner.Explain(owner_pb2.ExplainRequest()).problem
        == "there is no release yet: the cloud has not sent one"
    )
    assert bridge.Personalize(personalize(release, epochs=8)).items == 24
    scores = {
        stage: bridge.Evaluate(evaluate(release, stage)).scores
        for stage in ("base", "collective", "personal")
    }
    assert scores["base"].correct == scores["collective"].correct < scores["personal"].correct
    assert sum(scores["personal"].gold) == 8
    explained = owner.Explain(owner_pb2.ExplainRequest())
    assert (explained.release.version, explained.release.digest) == (1, release.digest)
    assert (explained.personal.origin, explained.personal.items) == ("fitted", 24)
    assert explained.problem == explained.busy == ""
    sent = list(owner.Sent(owner_pb2.SentRequest()))
    assert [message.call for message in sent] == ["status", "contribute", "personalize", *["evaluate"] * 3]
    assert sent[1].bytes == update.ByteSize()
    assert [field.value for field in sent[1].fields if field.name == "update"] == [
        "collective shift, layers 3, 4, rank 4"
    ]
    assert sum(field.bytes for field in sent[1].fields) == sent[1].bytes


def test_a_policy_agreed_to_under_a_rotated_key_is_the_guards(folder, release):
    home, new_key = Home(folder), SigningKey()
    rotated = release.rotated(CLOUD, new_key)
    write_policy(home.policy, sign_policy(policy(version=2, rank=16), new_key))
    with pytest.raises(InputError, match="not signed"), deployed(folder):
        pass
    write_atomic(home.releases / f"{rotated.version:08d}.safetensors", rotated.to_bytes())
    with deployed(folder) as edge:
        assert edge.guard.policy.rank == 16


def test_metrics_stay_where_their_owner_keeps_them(folder, header, release):
    about = json.loads((folder / "client.json").read_text()) | {"shares_metrics": False}
    (folder / "client.json").write_text(json.dumps(about))
    with deployed(folder) as edge, served(edge) as (channel, _):
        bridge = bridge_pb2_grpc.BridgeStub(channel)
        assert not bridge.Personalize(personalize(release)).HasField("loss")
        assert not bridge.Evaluate(evaluate(release, "personal")).HasField("scores")


def test_the_sockets_are_their_owners_alone(edge, stubs):
    for folder in (edge.home.bridge, edge.home.owner):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "agent.sock").stat().st_mode) == 0o600
    channel = grpc.insecure_channel(f"unix:{edge.home.bridge / 'agent.sock'}")
    with channel, pytest.raises(grpc.RpcError) as caught:
        owner_pb2_grpc.OwnerStub(channel).Explain(owner_pb2.ExplainRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_errors_over_the_bridge_have_no_text(stubs, edge, header, release):
    bridge, owner = stubs
    (edge.home.folder / "history.jsonl").write_text('{"secret words": "of mine"}\n')
    other = releases(replace(header, fingerprint="0" * 64), 1)[0]
    broken = bridge_pb2.ContributeRequest(shift=b"broken", training=personalize(release).training)
    for call, request, kind in (
        (bridge.Personalize, personalize(release), "InputError"),
        (bridge.Personalize, personalize(other), "InputError"),
        (bridge.Evaluate, evaluate(other, "base"), "InputError"),
        (bridge.Contribute, broken, "InputError"),
        (bridge.Contribute, bridge_pb2.ContributeRequest(shift=b"broken"), "SettingError"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert caught.value.details() == kind
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(grpc.RpcError) as caught:
        owner.Learn(owner_pb2.LearnRequest(items=["{}"]))
    assert "no text field" in caught.value.details()
    sent = list(owner.Sent(owner_pb2.SentRequest()))
    assert [message.fields[0].value for message in sent] == ["InputError"] * 4 + ["SettingError"]
    assert "no text field" in sent[1].reason
    assert "another base model" in sent[2].reason
    explained = owner.Explain(owner_pb2.ExplainRequest())
    assert (explained.refused, "contribute: " in explained.refusal) == (5, True)
    assert list(owner.Sent(owner_pb2.SentRequest(after=sent[2].number))) == sent[3:]


def test_generate_streams_what_it_would_answer_whole(stubs, edge, header):
    bridge, owner = stubs
    (release,) = releases(header, 1, group(header))
    bridge.Personalize(personalize(release, epochs=8))
    prompt = "a quiet story about the sea"
    texts = {}
    for stage in Stage:
        text, last = generated(owner, prompt=prompt, stage=stage, max_new_tokens=12)
        again, _ = generated(
            owner, turns=[owner_pb2.Turn(role="user", text=prompt)], stage=stage, max_new_tokens=12
        )
        assert text == again
        assert last.stage == stage
        assert last.finish in ("stop", "length")
        assert 0 < last.completion_tokens <= 12
        texts[stage] = text
    assert texts["base"] == texts["collective"]
    assert generated(owner, prompt=prompt, max_new_tokens=12)[0] == texts["personal"]
    sampled = [
        generated(owner, prompt=prompt, temperature=2.0, seed=n, max_new_tokens=12)[0] for n in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"prompt": "x", "stage": "personal"}, "no release yet"),
        ({"prompt": "x", "stage": "other"}, "stage='other'"),
        ({"prompt": "word " * 3000}, "the base model reads"),
        ({"prompt": "x", "temperature": -1}, "temperature=-1"),
        ({"prompt": "x", "top_p": 3}, "top_p=3"),
    ],
)
def test_a_bad_request_is_one_line(stubs, request_, reason):
    with pytest.raises(grpc.RpcError) as caught:
        generated(stubs[1], **request_)
    assert reason in caught.value.details()
    assert "\n" not in caught.value.details()


def test_the_owner_sees_what_was_learned_and_removes_some_of_it(stubs, header):
    bridge, owner = stubs
    bridge.Personalize(personalize(releases(header, 2)[1]))
    films = [f'{{"description": "a film {number}", "tag": "classic"}}' for number in range(2)]
    owner.Learn(owner_pb2.LearnRequest(items=films))
    assert [item for part in owner.Learned(owner_pb2.LearnedRequest()) for item in part.items] == films
    left = owner.Unlearn(owner_pb2.UnlearnRequest(numbers=[1]))
    assert (left.learned, left.fitted) == (1, True)
    assert [item for part in owner.Learned(owner_pb2.LearnedRequest()) for item in part.items] == films[1:]
    assert owner.Explain(owner_pb2.ExplainRequest()).personal.origin == "fitted"
    with pytest.raises(grpc.RpcError) as caught:
        owner.Unlearn(owner_pb2.UnlearnRequest(numbers=[2]))
    assert caught.value.details() == "item 2: there is none; 1 item in all"


def test_forget_is_bit_for_bit_the_collective_shift(stubs, edge, header, release):
    bridge, owner = stubs
    other = releases(header, 2)
    bridge.Personalize(personalize(other[1], epochs=8))
    owner.Learn(owner_pb2.LearnRequest(items=['{"description": "a film", "tag": "classic"}']))
    opened = edge.stages.open(other[1])
    collective = Slab.of([opened.shift], torch.device("cpu"))
    before = owner.Answer(owner_pb2.AnswerRequest(question=question(edge)))
    assert before.stage == "personal"
    forgotten = owner.Forget(owner_pb2.ForgetRequest())
    assert (forgotten.shifts, forgotten.learned) == (2, 1)
    (frozen,) = edge.stages.stack(edge.stages.chosen("")).parts
    assert torch.equal(frozen.W, collective.W[0])
    assert not list((edge.home.folder / "vault").rglob("*.sealed"))
    assert not (edge.home.folder / "vault" / "vault.key").exists()
    explained = owner.Explain(owner_pb2.ExplainRequest())
    assert explained.learned_items == 0
    assert not explained.HasField("personal")
    text, last = generated(owner, prompt="a film", max_new_tokens=8)
    assert (text, last.stage) == (
        generated(owner, prompt="a film", stage="collective", max_new_tokens=8)[0],
        "collective",
    )


@pytest.mark.parametrize("stage", ["collective", "directions", "personal"])
def test_what_suits_the_person_best_answers_and_says_so(stubs, header, stage, monkeypatch):
    bridge, owner = stubs
    (release,) = releases(header, 1, group(header))
    assert owner.Explain(owner_pb2.ExplainRequest()).stage == "base"
    each = {name: torch.full((4,), 2.0 - (name == stage)) for name in list(Stage)[1:]}
    monkeypatch.setattr("fedperfit.edge.fitting.choice._judged", lambda *asked: each)
    bridge.Personalize(personalize(release))
    told = owner.Explain(owner_pb2.ExplainRequest())
    assert told.stage == stage
    assert {judged.stage: judged.loss for judged in told.personal.judged} == {
        name: 2.0 - (name == stage) for name in list(Stage)[1:]
    }
    text, last = generated(owner, prompt="a film", max_new_tokens=8)
    assert last.stage == stage
    for other in Stage:
        asked = generated(owner, prompt="a film", max_new_tokens=8, stage=other)
        assert asked[1].stage == other
        assert other != stage or asked[0] == text


def question(edge: Deployed) -> str:
    return str(edge.agent.history.questions[0]["input"])


def in_background(call, *arguments):
    """The call's outcome, a value or an error, in a list once it is there."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call(*arguments))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def wait_until_busy(owner):
    for _ in range(600):
        if "step" in owner.Explain(owner_pb2.ExplainRequest()).busy:
            return
        time.sleep(0.05)
    raise AssertionError("no training began")


def test_while_one_trains_others_are_answered(stubs, edge, release):
    bridge, owner = stubs
    thread, outcome = in_background(bridge.Personalize, personalize(release, epochs=60))
    wait_until_busy(owner)
    assert bridge.Status(bridge_pb2.StatusRequest()).task == "LaMP_2M"
    text, _ = generated(owner, prompt="a film", max_new_tokens=4)
    assert text
    assert not outcome, "the training ended before the answer: it was not answered meanwhile"
    thread.join()
    assert outcome[0].items == 24


def test_a_cancelled_training_ends_and_stores_nothing(stubs, edge, release):
    bridge, owner = stubs
    call = bridge.Personalize.future(personalize(release, epochs=100_000))
    wait_until_busy(owner)
    call.cancel()
    for _ in range(600):
        if not owner.Explain(owner_pb2.ExplainRequest()).busy:
            break
        time.sleep(0.05)
    assert edge.agent.vault.slots() == []
    with pytest.raises(grpc.RpcError) as caught:
        bridge.Personalize(personalize(release, epochs=100_000), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert bridge.Personalize(personalize(release)).items == 24


def test_forgetting_during_a_training_leaves_nothing_of_it(stubs, edge, release):
    bridge, owner = stubs
    thread, outcome = in_background(bridge.Personalize, personalize(release, epochs=2_000))
    wait_until_busy(owner)
    owner.Forget(owner_pb2.ForgetRequest())
    thread.join()
    assert isinstance(outcome[0], grpc.RpcError)
    assert outcome[0].code() is grpc.StatusCode.CANCELLED
    assert edge.agent.vault.slots() == []


def test_too_many_trainings_are_turned_away(stubs, edge, release, monkeypatch):
    bridge, _owner = stubs
    monkeypatch.setattr(Rates, "take", lambda rates, kind: None)
    calls = [bridge.Personalize.future(personalize(release, epochs=100_000)) for _ in range(6)]
    try:
        refused = None
        for _ in range(600):
            refused = next((call for call in calls if call.done()), None)
            if refused is not None:
                break
            time.sleep(0.05)
        assert refused is not None
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.details() == Busy.__name__
    finally:
        for call in calls:
            call.cancel()


def test_a_second_agent_on_the_same_folder_is_refused(edge, folder):
    with pytest.raises(InputError, match="another process is using"), deployed(folder):
        pass


@pytest.mark.parametrize("form", [torch.float32, torch.bfloat16])
def test_a_reply_with_numbers_of_the_personal_shift_does_not_leave(
    stubs, edge, header, release, form, monkeypatch
):
    bridge, owner = stubs
    bridge.Personalize(personalize(release))
    packed = pack(Shift.identity(header.shape, seed=1), header)
    request = bridge_pb2.ContributeRequest(shift=packed, training=bridge_pb2.Training(**vars(TRAINING)))
    assert bridge.Contribute(request).items == 24
    honest, own = Deployed.contribute, edge.agent.vault.open(FULL_SLOT)[1]
    numbers = own.W.detach()[0, 1, 20:40].to(form).view(torch.uint8).numpy().tobytes()

    def leaking(self, *asked):
        done = honest(self, *asked)
        return replace(done, update=done.update + numbers)

    monkeypatch.setattr(Deployed, "contribute", leaking)
    with pytest.raises(grpc.RpcError) as refused:
        bridge.Contribute(request)
    assert refused.value.details() == "PersonalNumbers"
    *_, last = owner.Sent(owner_pb2.SentRequest())
    assert (
        last.reason
        == f"{len(numbers)} bytes of the reply were numbers of the personal shift; it did not leave"
    )
    monkeypatch.setattr(services, "check_leaving", lambda *about, **more: None)
    assert bridge.Contribute(request).update.endswith(numbers), "where the guard is off it leaves"

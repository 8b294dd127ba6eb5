"""The group's directions at a deployed edge: what is told of its pairs, and whom they serve."""

import hashlib
from contextlib import ExitStack

import grpc
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from tests.cloud.fake_grid import FakeGrid
from tests.edge.deployment.deployments import CLOUD, agree, deployed, policy, releases, served
from tests.edge.edge_clients import evaluation, write_client

from fedperfit.cloud.clients.exchange import Exchange
from fedperfit.cloud.job.directions import GroupDirections
from fedperfit.edge import client_app as bridge
from fedperfit.edge.agent.opened_release import OpenedRelease
from fedperfit.edge.audit.rates import Rates
from fedperfit.edge.chameleon.pairs import Reader, preference_states
from fedperfit.edge.chameleon.states import tokenize
from fedperfit.edge.deployment.server import serving
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.messages.settings import ROWS, PairSettings, PairSource
from fedperfit.protocol.messages.statistics import View, moments_from_bytes, sums_from_bytes, to_bytes
from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc, owner_pb2, owner_pb2_grpc
from fedperfit.protocol.shift.directions import Directions, editing
from fedperfit.protocol.shift.probe import Frame, Moments, evaluate, leading
from fedperfit.protocol.system.files import read_json_lines, write_json_lines
from fedperfit.protocol.tasks import PromptForm

SIX = {"items": 6, "source": "contrast", "batch_size": 8, "prompt_form": "lamp"}
PAIRS = bridge_pb2.Pairs(**SIX)
PROMPT = "a quiet story about the sea"


@pytest.fixture
def edge(tmp_path):
    with deployed(write_client(tmp_path / "ada", "LaMP_4", items=8, questions=6)) as edge:
        yield edge


@pytest.fixture
def stubs(edge):
    with served(edge) as (bridge, owner):
        yield bridge_pb2_grpc.BridgeStub(bridge), owner_pb2_grpc.OwnerStub(owner)


@pytest.fixture
def header(header):
    return type(header)(**{**vars(header), "task": "LaMP_4"})


@pytest.mark.parametrize("numbered", [False, True])
def test_copies_of_one_item_are_one_pair_whatever_their_numbers(tmp_path, numbered):
    """What stands out most of a person, said often, would fill all pairs: their sums would tell it alone."""
    said = {"text": "a", "title": "b"}

    def told(name, copies):
        folder = write_client(tmp_path / name, "LaMP_4", items=8)
        items = read_json_lines(folder / "history.jsonl")
        write_json_lines(folder / "history.jsonl", [*copies, *items])
        agree(folder, policy(task="LaMP_4", least_items=6))
        with deployed(folder) as edge:
            return edge.moments(PairSettings(**SIX), lambda: True)

    once = told("once", [said])
    assert once.items == 6
    assert told("often", [{**said, "id": str(n)} if numbered else said for n in range(6)]) == once
    assert told("never", []) != once


def test_moments_and_sums_are_those_of_the_pairs(stubs, edge):
    bridge, owner = stubs
    base, history = edge.agent.base, edge.agent.history
    reader = Reader(base, history.task, PromptForm.LAMP, 8)
    states = preference_states(reader, history, 6, PairSource.CONTRAST)
    told = bridge.Moments(bridge_pb2.MomentsRequest(pairs=PAIRS))
    found = moments_from_bytes(told.moments, told.pairs, base.card.layers, base.card.hidden_size)
    expected = Moments.of(states.personalized, states.neutral, ROWS)
    assert found.pairs == len(states) == 6
    torch.testing.assert_close(found.personalized_sum, expected.personalized_sum)
    torch.testing.assert_close(found.neutral_sum, expected.neutral_sum)
    torch.testing.assert_close(found.rows, expected.rows)

    singly = [Moments.of(p[:, None], n[:, None]) for p, n in zip(*sides(states), strict=True)]
    view = View.of(Frame.of(singly))
    probes = torch.randn(base.card.layers, view.axes.shape[1] + 1, 2)
    data = view.to_bytes()
    ask = {
        "pairs": PAIRS,
        "probes": to_bytes(probes),
        "view_digest": hashlib.sha256(data).hexdigest(),
    }
    unknown = bridge.Probe(bridge_pb2.ProbeRequest(**ask))
    assert (unknown.sums, unknown.pairs) == (b"", 0)
    with_view = bridge.Probe(bridge_pb2.ProbeRequest(**ask, view=data))
    again = bridge.Probe(bridge_pb2.ProbeRequest(**ask))
    assert with_view.sums == again.sums
    exact = evaluate(*view.coordinates(states.personalized, states.neutral), probes.double())
    for one, other in zip(sums_from_bytes(again.sums, probes), exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    sent = [(m.call, [f.value for f in m.fields]) for m in owner.Sent(owner_pb2.SentRequest())]
    assert sent[0] == ("moments", ["sums over preference pairs, and their two leading directions", "6"])
    assert sent[-1][0] == "probe"


def sides(states):
    return states.personalized.unbind(1), states.neutral.unbind(1)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (bridge_pb2.MomentsRequest(pairs=bridge_pb2.Pairs(items=3)), "SettingError"),
        (bridge_pb2.ProbeRequest(pairs=PAIRS, view=b"x", view_digest="0"), "InputError"),
    ],
)
def test_what_makes_no_sense_is_refused_by_type(stubs, request_, kind):
    bridge, _ = stubs
    call = bridge.Moments if isinstance(request_, bridge_pb2.MomentsRequest) else bridge.Probe
    with pytest.raises(grpc.RpcError) as caught:
        call(request_)
    assert caught.value.details() == kind


def test_few_pairs_are_not_told_of(stubs, edge):
    bridge, _ = stubs
    (edge.home.folder / "history.jsonl").write_text("")
    with pytest.raises(grpc.RpcError) as caught:
        bridge.Moments(bridge_pb2.MomentsRequest(pairs=PAIRS))
    assert caught.value.details() == "Refused"


def test_probes_sum_over_no_item_that_was_unlearned(stubs, edge):
    bridge, _ = stubs
    base, items = edge.agent.base, edge.agent.history.items
    edge.learn([item | {"text": f"{item['text']} again"} for item in items[:4]], lambda: True)
    bridge.Moments(bridge_pb2.MomentsRequest(pairs=PAIRS))
    states = torch.randn(2, base.card.layers, 6, base.card.hidden_size, generator=torch.Generator())
    singly = [Moments.of(*(side[:, n : n + 1] for side in states)) for n in range(6)]
    data = View.of(Frame.of(singly)).to_bytes()
    probes = torch.randn(base.card.layers, View.from_bytes(data, *states.shape[1::2]).axes.shape[1] + 1, 2)
    ask = {"pairs": PAIRS, "probes": to_bytes(probes), "view_digest": hashlib.sha256(data).hexdigest()}
    bridge.Probe(bridge_pb2.ProbeRequest(**ask, view=data))
    assert bridge.Probe(bridge_pb2.ProbeRequest(**ask)).pairs == 6, "the control"
    edge.unlearn([1, 2, 3, 4], lambda: True)
    assert bridge.Probe(bridge_pb2.ProbeRequest(**ask)).pairs == 0


def felt(base):
    """Directions that many MLP outputs lie along, so that removing them is felt."""
    outputs = []
    layers = decoder_layers(base.model)
    hooks = [layer.mlp.register_forward_hook(lambda m, a, out: outputs.append(out[0])) for layer in layers]
    base.model(torch.tensor([tokenize(base, PROMPT)]))
    for hook in hooks:
        hook.remove()
    neutral = torch.stack([torch.linalg.svd(out, full_matrices=False).Vh[0] for out in outputs])
    return Directions.of(range(len(layers)), torch.zeros_like(neutral), neutral)


def generated(owner, **request):
    *pieces, last = owner.Generate(owner_pb2.GenerateRequest(prompt=PROMPT, max_new_tokens=12, **request))
    return "".join(piece.text for piece in pieces), last.stage


def test_a_person_without_a_personal_shift_is_served_by_the_groups_directions(stubs, edge, header):
    _, owner = stubs
    (plain,) = releases(header, 1)
    directions = felt(edge.agent.base)
    edge.releases.accept(plain.to_bytes())
    assert generated(owner)[1] == "collective"
    following = plain.next(plain.shift, header, CLOUD, directions=directions)
    edge.releases.accept(following.to_bytes())
    assert list(owner.Explain(owner_pb2.ExplainRequest()).release.edited) == list(range(8))
    text, stage = generated(owner)
    assert stage == "directions"
    collective, _ = generated(owner, stage="collective")
    assert text != collective
    with editing(edge.agent.base.model, directions):
        assert generated(owner, stage="collective")[0] == text
    question = edge.agent.history.questions[0]["input"]
    assert owner.Answer(owner_pb2.AnswerRequest(question=question)).stage == "directions"


def test_the_stage_answers_as_the_edited_model_does_whatever_was_kept_of_it_before(edge, header):
    agent = edge.agent
    opened = OpenedRelease.of(releases(header, 1, felt(agent.base))[0].to_bytes(), agent.base)
    asked = [question["input"] for question in agent.history.questions]

    def answers(stage: str) -> list[str]:
        return [agent.answer(opened, question, evaluation(stage)) for question in asked]

    collective, directions = answers("collective"), answers("directions")
    assert directions != collective
    assert answers("collective") == collective
    agent.items.clear()
    with editing(agent.base.model, opened.directions):
        assert answers("collective") == directions


def test_the_stage_is_evaluated(stubs, edge, header):
    bridge, _ = stubs
    (release,) = releases(header, 1, felt(edge.agent.base))
    asked = bridge_pb2.Evaluation(stage="directions", slot="x", batch_size=8, prompt_form="lamp")
    request = bridge_pb2.EvaluateRequest(release=release.to_bytes(), evaluation=asked)
    assert bridge.Evaluate(request).items == len(edge.agent.history.questions)


def test_a_release_without_directions_cannot_be_asked_for_them(stubs, header):
    bridge, _ = stubs
    (release,) = releases(header, 1)
    asked = bridge_pb2.Evaluation(stage="directions", slot="x", batch_size=8, prompt_form="lamp")
    with pytest.raises(grpc.RpcError) as caught:
        bridge.Evaluate(bridge_pb2.EvaluateRequest(release=release.to_bytes(), evaluation=asked))
    assert caught.value.details() == "InputError"


def test_two_deployed_edges_find_directions_through_their_bridges(tmp_path, monkeypatch):
    """The cloud's requests, through the bridge's ClientApp, against the same pairs in one place."""
    monkeypatch.setattr(Rates, "take", lambda rates, kind: None)  # here no network takes any time
    with ExitStack() as stack:
        edges = {}
        for name in ("ada", "ben"):
            folder = write_client(tmp_path / name, "LaMP_4", seed=name, items=8, questions=2)
            edges[name] = stack.enter_context(deployed(folder))
            stack.enter_context(serving(edges[name], edges[name].home))

        def answer(client: str, message: Message) -> list[Message]:
            config = {"bridge": str(edges[client].home.bridge)}
            context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
            return [bridge.app(message, context)]

        grid = FakeGrid({1: "ada", 2: "ben"}, answer)
        ledger = Ledger(tmp_path / "ledger.jsonl")
        card = edges["ada"].agent.base.card
        settings = PairSettings(items=6, source="contrast", batch_size=8, prompt_form="lamp")
        search = GroupDirections(
            *(Exchange(grid, ledger, grid.clients), settings),
            layers=card.layers,
            hidden_size=card.hidden_size,
            deadline=60.0,
        )
        found = search.find(["ada", "ben"], edited=2, seed=0)
        people = [edge._memory.states[edge.agent.history.name][1] for edge in edges.values()]
        calls = [one.call for one in edges["ben"].record.messages()]
    joined = torch.cat([one.personalized for one in people], dim=1)
    expected = leading([Moments.of(joined, joined)])[list(found.layers)]
    assert (found.personalized * expected).sum(1).abs().min() > 0.999
    assert calls[0] == "moments"
    assert set(calls[1:]) == {"probe"}
    assert all(entry.message > 0 for entry in ledger.entries())

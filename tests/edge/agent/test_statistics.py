"""An agent's layer gradients, in process and over the bridge."""

import grpc
import pytest
import torch
from tests.edge.deployment.deployments import agree, deployed, policy, served
from tests.edge.edge_clients import write_client

from fedperfit.edge.agent.agent import Agent
from fedperfit.edge.agent.statistics import TooFewPairs, report_layer_gradient
from fedperfit.edge.engine.layer_gradients import layer_gradient
from fedperfit.protocol.messages.settings import LayerGradientSettings
from fedperfit.protocol.messages.statistics import layer_gradient_from_bytes
from fedperfit.protocol.model.base_model import EMBEDDED, load
from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc, owner_pb2, owner_pb2_grpc
from fedperfit.protocol.settings.names import key_of
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import PromptForm

SETTINGS = LayerGradientSettings(positions="l7", max_items=5, batch_size=4, prompt_form="lamp")


def test_a_deployed_edge_tells_the_pull_of_its_latest_pairs(tmp_path):
    folder = write_client(tmp_path / "ada", items=8, questions=1)
    agree(folder, policy(positions=SETTINGS.positions, max_items=SETTINGS.max_items))
    with deployed(folder) as edge, served(edge) as channels:
        stub, owner = bridge_pb2_grpc.BridgeStub(channels[0]), owner_pb2_grpc.OwnerStub(channels[1])
        told = stub.Pull(bridge_pb2.PullRequest(**vars(SETTINGS)))
        base, pairs = (
            edge.agent.base,
            edge.agent.history.pairs(PromptForm.LAMP, 5),
        )
        found = layer_gradient_from_bytes(told.pull, told.pairs, base.card.layers, base.card.hidden_size)
        expected = layer_gradient(base, pairs, Positions.parse("l7"))
        assert found.pairs == 5
        torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.length, expected.length, rtol=1e-4, atol=1e-4)
        (sent,) = owner.Sent(owner_pb2.SentRequest())
        assert [(field.name, field.value) for field in sent.fields] == [
            (
                "pull",
                "gradient of the mean loss over training pairs at each layer, mean length of the states",
            ),
            ("pairs", "5"),
        ]
        with pytest.raises(grpc.RpcError) as caught:
            stub.Pull(bridge_pb2.PullRequest(**vars(SETTINGS) | {"positions": "l0"}))
        assert caught.value.details() == "SettingError"


def test_few_pairs_are_not_told_of(tmp_path):
    agent = Agent(write_client(tmp_path / "ada", items=3, questions=1), load(EMBEDDED, device="cpu"))
    with pytest.raises(TooFewPairs, match="3 training pairs, at least 4 are needed"):
        report_layer_gradient(agent, SETTINGS)


@pytest.mark.parametrize(
    "change", [{"max_items": -1}, {"max_items": 3}, {"batch_size": 0}, {"prompt_form": "x"}]
)
def test_settings_that_make_no_sense_are_refused(change):
    with pytest.raises(InputError, match=key_of(next(iter(change)))):
        SETTINGS.replace(**change)

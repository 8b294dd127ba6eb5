"""A person's agent with a personal shift, and the owner's way to ask it, for all tests of this room."""

import pytest
from tests.edge.deployment.deployments import PERSONAL, TRAINING, deployed, releases, served
from tests.edge.edge_clients import write_client
from tests.edge.web.openai_client import Client
from tests.edge.web.web_servers import TOKEN

from fedperfit.edge.web.app import build
from fedperfit.protocol.schema import owner_pb2_grpc


@pytest.fixture(scope="session")
def edge(tmp_path_factory, header):
    folder = write_client(tmp_path_factory.mktemp("w") / "ada", items=16, questions=4)
    with deployed(folder) as edge, served(edge) as (_, owner):
        edge.personalize(releases(header, 1)[0].to_bytes(), PERSONAL, TRAINING, lambda: True)
        yield edge, owner_pb2_grpc.OwnerStub(owner)


@pytest.fixture(scope="session")
def client(edge):
    """OpenAI's client within this process."""
    return Client(build(edge[0].home.folder, TOKEN, hosts=["127.0.0.1"]))

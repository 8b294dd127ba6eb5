"""The account at the other end of a connection, against what this process knows of its own sockets."""

import os
import socket

import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from fedperfit.cloud.deployment.callers import SOCKETS, OneAccountOnly, caller

pytestmark = pytest.mark.skipif(not SOCKETS.exists(), reason="this system does not list its sockets")


def test_an_open_connection_is_of_this_account_and_a_closed_one_of_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, end = server.accept()
        with theirs:
            assert caller(end, server.getsockname()) == os.geteuid()
            assert caller(server.getsockname(), end) == os.geteuid()
            assert caller((end[0], end[1] ^ 1), server.getsockname()) is None
            ours.close()
            assert caller(end, server.getsockname()) is None, "it is still listed, under no account"


@pytest.mark.parametrize(("account", "status"), [(os.geteuid(), 200), (os.geteuid() + 1, 403)])
def test_an_application_answers_one_account(
    monkeypatch: pytest.MonkeyPatch, account: int, status: int
) -> None:
    app = FastAPI(middleware=[Middleware(OneAccountOnly, account=account)])
    app.get("/")(lambda: "here")
    monkeypatch.setattr("fedperfit.cloud.deployment.callers.caller", lambda *ends: os.geteuid())
    assert TestClient(app).get("/").status_code == status

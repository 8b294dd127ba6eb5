"""What the registrar answers to what may come from the network."""

import pytest
from starlette.testclient import TestClient
from tests.cloud.enrolment.fake_superlink import superlink

from fedperfit.cloud.deployment.home import CloudHome, init
from fedperfit.cloud.enrolment.inviting import enroll
from fedperfit.cloud.enrolment.registrar import application
from fedperfit.protocol.trust.bundle import Bundle, read_bundle
from fedperfit.protocol.trust.enrolment import MAX_BYTES, PATH, EnrolmentRequest
from fedperfit.protocol.trust.node_key import NodeKey, fingerprint

__all__ = ["superlink"]


@pytest.fixture
def home(tmp_path):
    home = CloudHome(tmp_path / "cloud")
    init(home, "quickstart", {})
    return home


@pytest.fixture
def client(home):
    return TestClient(application(home))


def invited(home: CloudHome, approve: bool = False) -> Bundle:
    enroll(home, "ada", home.folder.parent / "ada.bundle", approve=approve)
    return read_bundle(home.folder.parent / "ada.bundle")


def body(bundle: Bundle, key: NodeKey) -> str:
    return EnrolmentRequest.signed(bundle.name, bundle.token, key).model_dump_json()


def test_statuses(home, client, superlink, capsys):
    request, key = "", NodeKey()
    request = body(invited(home), key)
    superlink.up = False
    assert client.post(PATH, content=request).status_code == 503
    superlink.up = True
    answer = client.post(PATH, content=request)
    assert (answer.status_code, answer.json()["state"]) == (200, "enrolled")
    refused = client.post(PATH, content=body(read_bundle(home.folder.parent / "ada.bundle"), NodeKey()))
    assert (refused.status_code, refused.json()["state"]) == (403, "refused")
    assert fingerprint(key.public) in capsys.readouterr().out


def test_waiting(home, client, superlink):
    assert client.post(PATH, content=body(invited(home, approve=True), NodeKey())).status_code == 202


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"name": "ada"}',
        b'{"name": 1}',
        b"[" * 4000,
        b'{"a":' + b"9" * 4000 + b"}",
    ],
)
def test_nonsense_is_refused_without_quoting_it(home, client, superlink, content):
    answer = client.post(PATH, content=content)
    assert (answer.status_code, answer.json()["reason"]) == (403, "not a request to enrol")
    assert not superlink.calls


def test_a_field_too_many_or_of_another_form_is_refused(home, client, superlink):
    good = EnrolmentRequest.signed("ada", invited(home).token, NodeKey()).model_dump()
    for wrong in ({"more": 1}, {"token": "x"}, {"proof": "00" * 8}, {"key": "ssh-rsa AAAA"}, {"key": "\0"}):
        assert client.post(PATH, json=good | wrong).status_code == 403
    assert not superlink.calls
    assert client.post(PATH, json=good).status_code == 200, "the token is not spent by them"


def test_large_bodies_and_other_paths(client):
    assert client.post(PATH, content=b" " * (MAX_BYTES + 1)).status_code == 413
    assert client.get(PATH).status_code == 405
    assert client.post("/").status_code == 404

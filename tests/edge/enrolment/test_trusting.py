"""Which word about the cloud's authorities an edge takes, and that it never goes back."""

import json

import httpx
import pytest
from tests.edge.deployment.deployments import CLOUD, settings

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.enrolment import asking
from fedperfit.edge.enrolment.trusting import accept_authorities, fetch_authorities, learn_authorities
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic, write_json
from fedperfit.protocol.trust.authorities import MAX_BYTES, PATH, Authorities, sign_authorities
from fedperfit.protocol.trust.certificates import new_authority
from fedperfit.protocol.trust.signing import SigningKey

OLD, NEW, OTHER = (new_authority("x").certificate.decode() for _ in range(3))


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "ada")
    settings().write(home)
    write_atomic(home.authority, OLD.encode())
    write_json(home.node / "address.json", {"address": "cloud.example.org:8443"})
    return home


def statement(number: int, *certificates: str, key: SigningKey = CLOUD) -> bytes:
    return json.dumps(sign_authorities(Authorities(number, certificates), key)).encode()


def test_both_are_trusted_then_the_new_one_alone(home):
    assert not accept_authorities(home, statement(1, OLD)), "nothing new"
    assert accept_authorities(home, statement(2, OLD, NEW))
    assert home.authority.read_text() == OLD + NEW
    assert accept_authorities(home, statement(3, NEW))
    assert home.authority.read_text() == NEW


def test_an_earlier_statement_is_not_gone_back_to(home):
    assert accept_authorities(home, statement(2, NEW))
    for number in (1, 2):
        assert not accept_authorities(home, statement(number, OTHER))
    assert home.authority.read_text() == NEW


def test_another_key_convinces_nobody(home):
    with pytest.raises(InputError, match="not signed by the cloud's key"):
        accept_authorities(home, statement(9, OTHER, key=SigningKey()))
    assert home.authority.read_text() == OLD
    assert accept_authorities(home, statement(9, OTHER))


def answering(monkeypatch, status: int, data: bytes) -> list[httpx.Request]:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if not status:
            raise httpx.ConnectError("nobody")
        return httpx.Response(status, stream=httpx.ByteStream(data))

    monkeypatch.setattr(asking.httpx, "HTTPTransport", lambda **how: httpx.MockTransport(answer))
    return asked


@pytest.mark.parametrize(("status", "changes"), [(200, True), (404, False), (502, False)])
def test_it_is_fetched_from_the_cloud(home, monkeypatch, status, changes):
    asked = answering(monkeypatch, status, statement(1, OLD, NEW))
    assert fetch_authorities(home) is changes
    assert [str(request.url) for request in asked] == [f"https://cloud.example.org:8443{PATH}"]
    assert home.authority.read_text() == (OLD + NEW if changes else OLD)


@pytest.mark.parametrize("data", [b"x", b" " * (MAX_BYTES + 1), statement(1, NEW, key=SigningKey())])
def test_what_is_no_statement_changes_nothing(home, monkeypatch, data):
    answering(monkeypatch, 200, data)
    with pytest.raises(InputError, match="authorities"):
        fetch_authorities(home)
    assert home.authority.read_text() == OLD


def test_an_edge_goes_on_whatever_it_is_told(home, monkeypatch):
    said: list[str] = []
    answering(monkeypatch, 200, b"x")
    assert not learn_authorities(home, said.append)
    answering(monkeypatch, 200, statement(1, NEW))
    assert learn_authorities(home, said.append)
    assert ["refused" in said[0], "changed" in said[1], len(said)] == [True, True, 2]


def test_no_contact_is_said_with_address_and_reason_and_changes_nothing(home, monkeypatch):
    answering(monkeypatch, 0, b"")
    said: list[str] = []
    assert not learn_authorities(home, said.append)
    (line,) = said
    assert "no contact with your cloud at cloud.example.org:8443: nobody" in line
    assert home.authority.read_text() == OLD


def test_the_owner_accepts_a_file(run, home, tmp_path):
    file = tmp_path / "authorities.json"
    file.write_bytes(statement(2, NEW))
    assert "is trusted" in run("trust", home.folder, file)[1]
    assert home.authority.read_text() == NEW
    assert "nothing newer" in run("trust", home.folder, file)[1]
    file.write_bytes(statement(3, OTHER, key=SigningKey()))
    code, said = run("trust", home.folder, file)
    assert (code, said.count("\n")) == (2, 1)

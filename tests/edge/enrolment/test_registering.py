"""The node's key is made here, told with a proof, and registered once, whatever stops in between."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.edge.deployment.deployments import CLOUD, policy

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.enrolment import asking, registering
from fedperfit.edge.enrolment.registering import register
from fedperfit.edge.sums.party import KEYS, make_keys
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.bundle import Bundle
from fedperfit.protocol.trust.certificates import new_authority
from fedperfit.protocol.trust.enrolment import PATH, parse_request
from fedperfit.protocol.trust.node_key import fingerprint, read_node_key
from fedperfit.protocol.trust.policy import sign_policy

BUNDLE = Bundle(
    name="ada",
    address="cloud.example.org:8443",
    authority=new_authority("x").certificate.decode(),
    token="a" * 64,
    release_key=CLOUD.public,
    task="LaMP_2M",
    base_model="embedded",
    fingerprint="f" * 64,
    policy=json.dumps(sign_policy(policy(), CLOUD)),
)
ENROLLED = {"state": "enrolled"}
Answer = dict[str, str] | int | Exception


def replying(status: int, data: bytes = b"") -> httpx.Response:
    return httpx.Response(status, stream=httpx.ByteStream(data))


class FakeCloud:
    """Answers one request after the other as it is told to, and keeps what it was sent."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return replying(answer) if isinstance(answer, int) else replying(200, json.dumps(answer).encode())


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCloud]:
    def cloud(*answers: Answer) -> FakeCloud:
        fake = FakeCloud(*answers)
        monkeypatch.setattr(asking.httpx, "HTTPTransport", lambda **how: httpx.MockTransport(fake))
        monkeypatch.setattr(registering, "wait_until", lambda ready, seconds: False)
        return fake

    return cloud


def registered(home: Home, said: list[str] | None = None, digest: str = "d", stops: int = 100) -> bool:
    left = iter(range(stops))
    lines = [] if said is None else said
    return register(BUNDLE, home, digest, say=lines.append, stopping=lambda: next(left, None) is None)


def test_the_private_key_stays(tmp_path, cloud):
    home, asked = Home(tmp_path / "ada"), cloud(ENROLLED)
    assert registered(home)
    (sent,) = asked.requests
    assert str(sent.url) == f"https://{BUNDLE.address}{PATH}"
    request = parse_request(sent.content)
    request.check_proof()
    key = read_node_key(home.node_key)
    assert (request.key, request.token) == (key.public, BUNDLE.token)
    assert stat.S_IMODE(home.node_key.stat().st_mode) == 0o600
    private = home.node_key.read_bytes().splitlines()[3]
    assert len(private) > 30
    assert private not in sent.content
    sums = make_keys(home.folder)
    assert request.sums == sums.public.hex
    assert sums.to_bytes().hex()[:64].encode() not in sent.content
    assert stat.S_IMODE((home.folder / KEYS).stat().st_mode) == 0o600
    assert home.enrolment.read_text() == "d"


def test_it_asks_until_the_cloud_answers_and_says_each_thing_once(tmp_path, cloud):
    home, said = Home(tmp_path / "ada"), []
    away = [httpx.ConnectError("refused")] * 3
    waits = [{"state": "waiting"}] * 3
    asked = cloud(*away, 502, 429, *waits, ENROLLED)
    assert registered(home, said)
    assert len(asked.requests) == 9
    assert len({request.content for request in asked.requests}) == 1, "the same key and proof each time"
    key = fingerprint(read_node_key(home.node_key).public)
    assert [line.split(" (")[0] for line in said] == [
        *["the cloud at cloud.example.org:8443 does not answer"] * 3,
        f"waiting until your cloud approves of this machine's key {key}",
    ]
    assert "status 502" in said[1]


def test_a_refusal_is_said_and_nothing_has_joined(tmp_path, cloud):
    home = Home(tmp_path / "ada")
    cloud({"state": "refused", "reason": "expired"})
    with pytest.raises(InputError, match=r"cloud\.example\.org:8443: expired"):
        registered(home)
    assert not home.enrolment.exists()


def test_a_key_is_kept_for_its_invitation_alone(tmp_path, cloud):
    home = Home(tmp_path / "ada")
    asked = cloud(*[httpx.ReadTimeout("gone")] * 2, ENROLLED)
    assert not registered(home, stops=1), "stopped before the answer came"
    assert not home.enrolment.exists()
    assert not registered(home, stops=1, digest="another")
    assert registered(home, digest="another")
    keys = [parse_request(request.content).key for request in asked.requests]
    assert keys[0] != keys[1] == keys[2]


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"state": "root"}', b" " * 5000])
def test_a_reply_that_is_none_is_no_reply(tmp_path: Path, cloud, monkeypatch, data):
    home, said = Home(tmp_path / "ada"), []
    cloud()
    transport = httpx.MockTransport(lambda request: replying(200, data))
    monkeypatch.setattr(asking.httpx, "HTTPTransport", lambda **how: transport)
    assert not registered(home, said, stops=2)
    assert len(said) == 1
    assert not home.enrolment.exists()

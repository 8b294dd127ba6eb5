"""Health and metrics of an edge: who may read them, what they say, and that nothing personal is in them."""

import pytest
from starlette.testclient import TestClient

from fedperfit.edge.audit.log import AuditLog
from fedperfit.edge.audit.totals import REFUSED, SENT, Totals
from fedperfit.edge.deployment.home import Home
from fedperfit.edge.web import metrics
from fedperfit.edge.web.app import build
from fedperfit.edge.web.metrics import ChainCheck, agent_metrics
from fedperfit.edge.web.owner import AgentError, Owner
from fedperfit.protocol.schema import owner_pb2

PERSONAL = ["ada", "/home/ada", "f00d", "LaMP_2M", "the secret item", "passphrase", "step 3", "0123456789"]
TOLD = owner_pb2.Explanation(
    client="ada",
    base_model="/home/ada/model",
    fingerprint="f00d" * 16,
    task="LaMP_2M",
    refusal="2026-11-26 contribute: the secret item",
    problem="the secret item",
    key="passphrase",
    busy="learn: step 3 of 4",
    history_items=41,
    learned_items=17,
    sent=[
        owner_pb2.SentTotal(call="contribute", messages=9, bytes=4000, refused=4),
        owner_pb2.SentTotal(call="status", messages=2, bytes=60),
    ],
    release=owner_pb2.ReleaseState(
        version=3, digest="0123456789", issued="2026-01-01T00:00:00Z", expires="2027-01-01T00:00:00Z"
    ),
    confirmed="2026-01-01T00:00:00Z",
)


class Down(AgentError):
    def __init__(self) -> None:
        self.status, self.text = 503, "the agent is not running"


@pytest.fixture
def client(tmp_path, monkeypatch):
    home = Home(tmp_path / "ada")
    log = AuditLog(home.audit)
    log.add({"event": "request"}, {"event": "request"})
    log.close()

    async def explanation(owner: Owner) -> owner_pb2.Explanation:
        return TOLD

    monkeypatch.setattr(Owner, "explanation", explanation)
    app = build(home.folder, "all", hosts=["testserver"], metrics_token="numbers")
    return TestClient(app)


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def test_a_token_of_their_own_opens_the_metrics_and_nothing_else(client):
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=bearer("other")).status_code == 401
    for token in ("numbers", "all"):
        assert client.get("/metrics", headers=bearer(token)).status_code == 200
    for path in ("/owner/state", "/owner/sent", "/v1/models"):
        assert client.get(path, headers=bearer("numbers")).status_code == 401


def test_without_a_token_of_their_own_no_empty_one_opens_them(tmp_path):
    client = TestClient(build(tmp_path, "all", hosts=["testserver"]))
    assert client.get("/metrics", headers={"authorization": "Bearer "}).status_code == 401


def test_the_metrics_count_requests_by_kind_and_decision(client):
    lines = client.get("/metrics", headers=bearer("numbers")).text.splitlines()
    for line in (
        'fedperfit_edge_requests_total{kind="contribute",decision="answered"} 5',
        'fedperfit_edge_requests_total{kind="contribute",decision="refused"} 4',
        'fedperfit_edge_sent_bytes_total{kind="contribute"} 4000',
        *("fedperfit_edge_release_version 3", "fedperfit_edge_audit_chain_ok 1", "fedperfit_edge_up 1"),
        *("fedperfit_edge_busy 1", "fedperfit_edge_paused 0"),
    ):
        assert line in lines
    ages = [float(line.split()[1]) for line in lines if line.startswith("fedperfit_edge_release_age_seconds")]
    assert ages[0] > 86_400


def test_nothing_personal_is_in_them():
    said = agent_metrics(TOLD, sound=True)
    assert not [word for word in (*PERSONAL, " 41", " 17") if word in said]


def test_health_says_whether_the_agent_answers_and_no_more(client, monkeypatch):
    assert (client.get("/healthz").status_code, client.get("/healthz").text) == (200, "ok\n")

    async def down(owner: Owner) -> owner_pb2.Explanation:
        raise Down

    monkeypatch.setattr(Owner, "explanation", down)
    assert client.get("/healthz").status_code == 503
    assert "fedperfit_edge_up 0" in client.get("/metrics", headers=bearer("numbers")).text


def test_a_changed_log_shows_and_is_not_read_at_every_scrape(tmp_path, monkeypatch):
    home, read = Home(tmp_path / "ada"), []
    log = AuditLog(home.audit)
    log.add({"event": "request"}, {"event": "sent", "call": "status", "bytes": 1})
    log.close()
    (path,) = home.audit.glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"request"', b'"changed"'))
    verify = metrics.verify
    monkeypatch.setattr(metrics, "verify", lambda audit: read.append(1) or verify(audit))
    check = ChainCheck(home.audit)
    assert not check.sound()
    assert not check.sound()
    assert len(read) == 1
    assert "audit_chain_ok 0" in agent_metrics(None, sound=check.sound())


def test_refusals_are_counted_by_kind():
    totals = Totals()
    for event in (SENT, REFUSED, REFUSED):
        totals.count({"event": event, "call": "pull", "bytes": 1, "time": "now", "reason": "no"})
    assert totals.refusals == {"pull": 2}
    assert Totals.from_json(totals.to_json()) == totals
    earlier = {name: value for name, value in totals.to_json().items() if name != "refusals"}
    assert Totals.from_json(earlier).refused == 2

"""The owner's page in a real browser."""

import shutil
from urllib.parse import urlsplit

import grpc
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from tests.edge.deployment.deployments import CLOUD, PERSONAL, TRAINING, deployed, group, releases, served
from tests.edge.edge_clients import write_client
from tests.edge.web.web_servers import TOKEN, web

from fedperfit.protocol.schema import bridge_pb2, bridge_pb2_grpc, owner_pb2, owner_pb2_grpc
from fedperfit.protocol.shift.shift import Shift

expect.set_options(timeout=20_000)  # on a machine that is busy

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def agent(tmp_path_factory, header):
    folder = write_client(tmp_path_factory.mktemp("p") / "ada", items=16, questions=4)
    with deployed(folder) as edge, served(edge) as channels, web(folder) as url:
        yield edge, *channels, url, releases(header, 1)[0]


@pytest.fixture
def page(agent):
    """A page that has asked nobody but the server, and complained of nothing."""
    url = agent[3]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        browser.close()
    assert {urlsplit(one).netloc for one in asked} == {urlsplit(url).netloc}
    assert [one for one in complaints if "401" not in one and "409" not in one] == []


def text(page: Page, selector: str) -> str:
    return page.locator(selector).inner_text()


def test_the_page_from_before_the_first_release_to_after(agent, page):
    edge, bridge, owner, url, release = agent
    page.goto(url)
    page.locator("#door").wait_for()
    assert not page.locator("#inside").is_visible()
    page.fill("#token", "wrong")
    page.click("#door button")
    expect(page.locator("#inside")).to_be_hidden()
    page.fill("#token", TOKEN)
    page.click("#door button")
    page.locator("#inside").wait_for()
    assert "no release yet" in text(page, "#problem")
    assert "the cloud has sent none" in text(page, "#release")
    stub = bridge_pb2_grpc.BridgeStub(bridge)
    stub.Status(bridge_pb2.StatusRequest())
    stub.Personalize(
        bridge_pb2.PersonalizeRequest(
            release=release.to_bytes(),
            personal=bridge_pb2.Personal(**vars(PERSONAL)),
            training=bridge_pb2.Training(**vars(TRAINING)),
        )
    )
    page.reload()
    page.locator("#shift dd").first.wait_for()
    expect(page.locator("#shift")).to_contain_text("fitted")
    assert not page.locator("#problem").is_visible()
    assert "16 items" in text(page, "#shift")
    assert release.digest[:16] in text(page, "#release")
    chosen = owner_pb2_grpc.OwnerStub(owner).Explain(owner_pb2.ExplainRequest()).stage
    assert [one.get_attribute("id") for one in page.locator(".chosen").all()] == [chosen]
    assert not page.locator("#directions").is_visible()
    assert "2 messages" in text(page, "#total")
    messages = text(page, "#messages")
    fingerprint = edge.agent.base.card.fingerprint
    for told in ("personalize", "items = 16", "loss = ", "status", f"fingerprint = {fingerprint}"):
        assert told in messages
    prompt = "a quiet story about the sea"
    page.fill("#prompt", prompt)
    page.click("#go")
    expect(page.locator("#personal pre")).not_to_be_empty(timeout=60_000)
    expect(page.locator("#go")).to_be_enabled(timeout=60_000)
    for stage in ("base", "collective", "personal"):
        asked = owner_pb2.GenerateRequest(prompt=prompt, stage=stage)
        pieces = owner_pb2_grpc.OwnerStub(owner).Generate(asked)
        assert text(page, f"#{stage} pre") == "".join(piece.text for piece in pieces).strip()
    page.set_viewport_size({"width": 375, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_a_groups_directions_have_a_place_of_their_own(agent, page, header):
    release = agent[4].next(Shift.identity(header.shape, seed=1), header, CLOUD, directions=group(header))
    bridge_pb2_grpc.BridgeStub(agent[1]).Personalize(
        bridge_pb2.PersonalizeRequest(
            release=release.to_bytes(),
            personal=bridge_pb2.Personal(**vars(PERSONAL)),
            training=bridge_pb2.Training(**vars(TRAINING)),
        )
    )
    page.goto(f"{agent[3]}/#token={TOKEN}")
    expect(page.locator("#directions")).to_be_visible()
    assert "4, 5" in text(page, "#release")
    for stage in ("collective", "directions", "personal"):
        assert f"loss, {stage}" in text(page, "#shift")
    page.fill("#prompt", "a quiet story")
    page.click("#go")
    expect(page.locator("#personal pre")).not_to_be_empty(timeout=60_000)
    expect(page.locator("#go")).to_be_enabled(timeout=60_000)
    pieces = owner_pb2_grpc.OwnerStub(agent[2]).Generate(
        owner_pb2.GenerateRequest(prompt="a quiet story", stage="directions")
    )
    assert text(page, "#directions pre") == "".join(piece.text for piece in pieces).strip()


def test_a_refused_request_raises_an_alarm_and_rows_come_as_they_are_sent(agent, page):
    page.goto(f"{agent[3]}/#token={TOKEN}")
    page.locator("#inside").wait_for()
    expect(page.locator("#alarm")).to_be_hidden()
    rows = page.locator("#messages tr")
    before = rows.count()
    bridge = bridge_pb2_grpc.BridgeStub(agent[1])
    with pytest.raises(grpc.RpcError):
        bridge.Contribute(bridge_pb2.ContributeRequest(shift=b"broken"))
    expect(page.locator("#alarm")).to_contain_text("1 requests of the cloud's were refused. The latest: ")
    expect(rows).to_have_count(before + 1)
    assert "refused: " in text(page, "#messages")
    page.click("#seen")
    expect(page.locator("#alarm")).to_be_hidden()
    bridge.Status(bridge_pb2.StatusRequest())
    expect(rows).to_have_count(before + 2)
    expect(page.locator("#alarm")).to_be_hidden()


def test_the_link_that_serve_prints_opens_it(agent, page):
    page.goto(f"{agent[3]}/#token={TOKEN}")
    page.locator("#inside").wait_for()
    assert "#" not in page.url
    assert TOKEN not in page.content()

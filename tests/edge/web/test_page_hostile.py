"""Hostile text in what the owner's page is told: shown as text, in a real browser."""

import shutil
from importlib import resources

import pytest
from playwright.sync_api import Route, expect, sync_playwright

HOSTILE = "<script>window.bad=1</script>\"'&<img src=x onerror=window.bad=1>"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
STATE = {
    **dict.fromkeys(("client", "task", "base_model", "busy", "problem", "stage"), HOSTILE),
    **{"history_items": 1, "learned_items": 1, "shares_metrics": False, "sealed_history": True},
    **{"sent": [{"call": HOSTILE, "messages": 1, "bytes": 1}], "refused": 1, "refusal": HOSTILE},
    **{"paused": False, "not_consented": [HOSTILE], "key": HOSTILE},
    "release": {
        **dict.fromkeys(("version", "issued", "expires", "rounds", "positions", "rank", "digest"), HOSTILE),
        **{"layers": [HOSTILE], "edited": [HOSTILE]},
    },
    "personal": {
        **dict.fromkeys(("rank", "release", "origin", "stored"), HOSTILE),
        **{"parameters": 1, "items": 1, "judged": [{"stage": HOSTILE, "loss": 1.0}]},
    },
}
FIELD = {"name": HOSTILE, "value": HOSTILE, "bytes": 1}
SENT = [{"time": HOSTILE, "call": HOSTILE, "bytes": 1, "fields": [FIELD], "number": 1, "reason": HOSTILE}]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_hostile_text_is_shown_as_text() -> None:
    files = resources.files("fedperfit.edge.web")

    def serve(route: Route) -> None:
        name = route.request.url.removeprefix("http://owner.test/")
        if name in ("page.css", "page.js"):
            kind = {"page.css": "text/css", "page.js": "text/javascript"}[name]
            route.fulfill(body=(files / name).read_text(), content_type=kind)
        elif name.startswith("owner/"):
            route.fulfill(json=STATE if name == "owner/state" else SENT)
        else:
            route.fulfill(body=(files / "page.html").read_text(), content_type="text/html")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.route("**/*", serve)
        page.goto("http://owner.test/#token=one")
        expect(page.locator("#messages")).to_contain_text(HOSTILE)
        for place in ("#who", "#problem", "#alarm", "#release", "#shift", "#history", "#total"):
            expect(page.locator(place)).to_contain_text(HOSTILE if place != "#release" else HOSTILE[:16])
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 1
        assert page.evaluate("window.bad") is None
        browser.close()

"""By which names the owner's page answers: those of the loopback, over IPv4 and IPv6, and no other."""

import socket
from pathlib import Path

import httpx2
import pytest
from tests.edge.web.web_servers import web


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        pytest.param("::1", marks=pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")),
    ],
)
def test_the_page_answers_at_its_address_and_by_no_foreign_name(tmp_path: Path, host: str) -> None:
    with web(tmp_path, host) as url, httpx2.Client(base_url=url, trust_env=False) as client:
        page = client.get("/")
        assert (page.status_code, page.headers["content-type"][:9]) == (200, "text/html")
        assert client.get("/v1/models").status_code == 401, "a token is asked for"
        for foreign in ("owner.example", f"owner.example:{client.base_url.port}", "[2001:db8::1]", ""):
            refused = client.get("/", headers={"host": foreign})
            assert (refused.status_code, refused.text) == (400, "this page has another name\n")
            assert refused.headers["cache-control"] == "no-store"

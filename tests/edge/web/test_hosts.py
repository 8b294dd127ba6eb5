"""By which names the owner's page answers: those of the loopback, over IPv4 and IPv6, and no other."""

import socket
from pathlib import Path

import httpx2
import pytest
from tests.edge.web.web_servers import web

from fedperfit.edge.web.hosts import LOOPBACK, called_by


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


@pytest.mark.parametrize("name", LOOPBACK)
def test_a_page_is_called_by_its_names_whatever_the_port(name: str) -> None:
    assert called_by(name, LOOPBACK)
    assert called_by(f"{name}:8100", LOOPBACK)


@pytest.mark.parametrize(
    "host",
    [
        *("", ":8100", "owner.example", "owner.example:8100", "[2001:db8::1]:8100", "[::1", "::1"),
        *("[::1].owner.example", "localhost.owner.example", "owner.example:[::1]", "[::1]:8100:8100"),
        *("owner.example@localhost", "localhost ", "[::1]\n"),
    ],
)
def test_a_foreign_name_is_none_of_them(host: str) -> None:
    assert not called_by(host, LOOPBACK)

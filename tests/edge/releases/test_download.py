"""Files of the cloud's come whole, within their limits, from the enrolled authority, or not at all."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tests.edge.releases.published import Cloud

from fedperfit.edge.releases.download import CloudFiles, NotFetched


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with Cloud(tmp_path).up() as cloud:
        cloud.files["a"] = bytes(1000)
        yield cloud


def test_a_file_comes_whole(cloud: Cloud):
    assert CloudFiles(cloud.address, cloud.authority).get("a", 1000) == bytes(1000)
    assert cloud.asked == ["/releases/a"]


def test_what_is_missing_or_not_reached_is_one_line(cloud: Cloud):
    with pytest.raises(NotFetched, match=r"^b: status 404$"):
        CloudFiles(cloud.address, cloud.authority).get("b", 1000)
    with pytest.raises(NotFetched, match=r"^a: .*refused"):
        CloudFiles("127.0.0.1:1", cloud.authority).get("a", 1000)


def test_a_larger_file_is_not_read(cloud: Cloud):
    sent: list[int] = []

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while sum(sent) < 1 << 28:
                sent.append(request.wfile.write(bytes(1 << 16)))
        except OSError:
            pass

    files = CloudFiles(cloud.address, cloud.authority)
    with pytest.raises(NotFetched, match=r"^a: 1000 bytes, at most 999 are read"):
        files.get("a", 999)
    cloud.answer = endless
    with pytest.raises(NotFetched, match=r"^a: at most 999 bytes are read"):
        files.get("a", 999)
    assert sum(sent) < 1 << 25


def test_a_file_cut_short_is_refused(cloud: Cloud):
    def short(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(bytes(99))

    cloud.answer = short
    with pytest.raises(NotFetched, match=r"1 bytes are missing"):
        CloudFiles(cloud.address, cloud.authority).get("a", 1000)


def test_a_file_that_trickles_is_given_up(cloud: Cloud):
    def trickle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            for _ in range(100):
                request.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass

    cloud.answer = trickle
    with pytest.raises(NotFetched, match=r"not whole after 0.2 s"):
        CloudFiles(cloud.address, cloud.authority, seconds=0.2).get("a", 1000)


def test_another_authority_is_not_trusted(cloud: Cloud, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(NotFetched, match=r"certificate verify failed"):
        CloudFiles(cloud.address, Cloud(other).authority).get("a", 1000)


def test_nobody_is_followed_elsewhere(cloud: Cloud):
    def moved(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", "/releases/a")
        request.send_header("Content-Length", "0")
        request.end_headers()

    cloud.answer = moved
    with pytest.raises(NotFetched, match=r"status 302"):
        CloudFiles(cloud.address, cloud.authority).get("a", 1000)

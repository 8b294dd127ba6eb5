"""Files of the cloud's come whole, within their limits, from the enrolled authority, or not at all."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tests.edge.releases.published import Cloud, Mirror

from fedperfit.edge.releases import download
from fedperfit.edge.releases.download import CloudFiles, NotFetched, WebFolder


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


@pytest.fixture
def lasting(tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path)
    cloud.lasting, cloud.files = True, {"a": b"one", "b": b"two"}
    with cloud.up():
        yield cloud


def test_a_connection_to_the_cloud_lasts_from_one_file_to_the_next(lasting: Cloud):
    files = CloudFiles(lasting.address, lasting.authority)
    assert [files.get(name, 10) for name in "aba"] == [b"one", b"two", b"one"]
    assert len(lasting.connections) == 3
    assert len(set(lasting.connections)) == 1


def test_a_mirror_sees_a_connection_for_each_file(tmp_path: Path):
    mirror = Mirror(tmp_path)
    mirror.lasting, mirror.files = True, {"a": b"one"}
    with mirror.up():
        files = WebFolder(mirror.place, None)
        assert [files.get("a", 10) for _ in range(2)] == [b"one", b"one"]
    assert len(set(mirror.connections)) == 2


def test_a_connection_that_was_not_used_for_long_is_not_used_again(
    lasting: Cloud, monkeypatch: pytest.MonkeyPatch
):
    now = time.monotonic
    files = CloudFiles(lasting.address, lasting.authority)
    files.get("a", 10)
    monkeypatch.setattr(time, "monotonic", lambda: now() + 66)
    files.get("b", 10)
    monkeypatch.undo()
    assert len(set(lasting.connections)) == 2


def test_a_connection_that_the_cloud_gave_up_costs_another_and_no_file(lasting: Cloud):
    def last(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "3")
        request.end_headers()
        request.wfile.write(b"one")
        request.close_connection = True  # without saying so, as after a restart
        lasting.answer = None

    files = CloudFiles(lasting.address, lasting.authority)
    lasting.answer = last
    assert [files.get("a", 10), files.get("b", 10), files.get("a", 10)] == [b"one", b"two", b"one"]
    assert len(set(lasting.connections)) == 2


def test_a_connection_that_falls_silent_costs_another_and_no_file(
    lasting: Cloud, monkeypatch: pytest.MonkeyPatch
):
    def silent(request: BaseHTTPRequestHandler) -> None:
        lasting.answer = None
        over.wait(30)

    over = threading.Event()
    monkeypatch.setattr(download, "SILENT_SECONDS", 1.0)
    files = CloudFiles(lasting.address, lasting.authority)
    files.get("a", 10)
    lasting.answer = silent
    assert files.get("b", 10) == b"two"
    over.set()
    assert len(set(lasting.connections)) == 2


def test_what_ends_a_file_early_ends_its_connection(lasting: Cloud):
    files = CloudFiles(lasting.address, lasting.authority)
    with pytest.raises(NotFetched, match="at most 2 are read"):
        files.get("a", 2)
    with pytest.raises(NotFetched, match="status 404"):
        files.get("c", 10)
    assert files.get("b", 10) == b"two"
    assert len(set(lasting.connections)) == 3


def test_a_file_that_stops_on_a_lasting_connection_is_given_up_in_time(lasting: Cloud):
    def stop(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "3")
        request.end_headers()
        given_up.wait(30)
        waited.set()

    given_up, waited = threading.Event(), threading.Event()
    files = CloudFiles(lasting.address, lasting.authority, seconds=0.5)
    files.get("a", 10)
    lasting.answer = stop
    with pytest.raises(NotFetched, match=r"not whole after 0.5 s"):
        files.get("b", 10)
    assert not waited.is_set()
    given_up.set()

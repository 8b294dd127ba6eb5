"""Whoever hands out a cloud's files is trusted with nothing: what they do is refused, is bounded, or shows.

Each attack has its control: the same edge takes what an honest mirror gives.
"""

import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tests.edge.releases.published import Cloud, Mirror
from tests.edge.releases.test_fetching import KEY, Edge
from tests.protocol.trust.chains import DAY, START, chain

from fedperfit.edge.releases.download import NotFetched, WebFolder
from fedperfit.edge.releases.fetching import Told
from fedperfit.protocol.trust.published import POINTER_FILE
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.signing import SigningKey

NOW = START + 3 * DAY
HOUR = timedelta(hours=1)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with Cloud(tmp_path).up() as cloud:
        yield cloud


@pytest.fixture
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    with Mirror(tmp_path_factory.mktemp("mirror")).up() as mirror:
        yield mirror


@pytest.fixture
def edge(tmp_path: Path, cloud: Cloud, mirror: Mirror) -> Edge:
    return Edge(tmp_path / "releases", cloud, mirror=WebFolder(mirror.place, None))


@pytest.fixture
def releases() -> list[Release]:
    return chain(KEY, 3)


def publish(release: Release, *places: Cloud, key: SigningKey = KEY) -> None:
    for place in places:
        place.publish(release, key, issued=NOW)


def failed_until_the_cloud_is_asked(edge: Edge, cloud: Cloud) -> None:
    """Look three times in vain, then once more, at the cloud."""
    before = edge.version
    for _ in range(3):
        edge.fetcher.step()
        assert edge.version == before
    assert cloud.asked == []
    edge.fetcher.step()
    assert cloud.asked


def test_an_edge_far_behind_reaches_the_release_in_force_from_the_mirror_alone(
    edge: Edge, cloud: Cloud, mirror: Mirror, releases: list[Release]
):
    publish(releases[0], mirror)
    edge.fetcher.step()
    publish(releases[2], mirror)
    edge.fetcher.step()
    assert (edge.version, edge.said, cloud.asked) == (3, ["fetched release 1", "fetched release 3"], [])


def test_freeze_an_old_word_shows_when_it_expires_and_the_cloud_is_asked(
    edge: Edge, cloud: Cloud, mirror: Mirror, releases: list[Release]
):
    publish(releases[0], mirror)
    edge.fetcher.step()
    edge.now += 4 * HOUR
    cloud.publish(releases[1], KEY, issued=edge.now)
    failed_until_the_cloud_is_asked(edge, cloud)
    assert edge.version == 2
    mirror.publish(releases[2], KEY, issued=edge.now + timedelta(seconds=1))
    edge.fetcher.step()
    assert (edge.version, edge.store.notice()) == (3, ""), "the control: it is asked again, and honest now"


def test_a_mirror_that_is_well_again_is_asked_also_while_the_cloud_is_not_reached(
    edge: Edge, cloud: Cloud, mirror: Mirror, releases: list[Release]
):
    for _ in range(4):
        edge.fetcher.step()
    assert (len(mirror.asked), len(cloud.asked)) == (3, 1), "neither has anything"
    publish(releases[0], mirror)
    edge.fetcher.step()
    assert (edge.version, len(cloud.asked)) == (1, 1)


def test_what_it_says_in_place_of_an_answer_is_one_line_that_harms_no_terminal(edge: Edge, mirror: Mirror):
    mirror.answer = lambda request: request.wfile.write(b"\x1b[2J\nfetched release 7" + b"x" * 9999)
    edge.fetcher.step()
    assert len(edge.said) == 1
    assert edge.said[0].isprintable()
    assert len(edge.said[0]) < 300


def test_rollback_and_fork_are_refused(edge: Edge, cloud: Cloud, mirror: Mirror, releases: list[Release]):
    publish(releases[1], mirror)
    edge.fetcher.step()
    assert edge.version == 2
    publish(releases[0], mirror)
    edge.fetcher.step()
    assert "version 1 is older than 2" in edge.store.notice()
    other = SigningKey()
    publish(chain(other, 3)[2], mirror, key=other)
    edge.fetcher.step()
    assert "foreign key" in edge.store.notice()
    assert edge.version == 2
    publish(releases[2], mirror)
    edge.fetcher.step()
    assert (edge.version, edge.store.notice()) == (3, ""), "the control"


@pytest.mark.parametrize("name", ["pointer", "release"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "longer"])
def test_damaged_files_are_refused(
    edge: Edge, cloud: Cloud, mirror: Mirror, releases: list[Release], name: str, damage: str
):
    publish(releases[0], mirror, cloud)
    file = POINTER_FILE if name == "pointer" else mirror.file(releases[0])
    whole = mirror.files[file]
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    mirror.files[file] = {"truncated": whole[:-3], "changed": changed, "longer": whole + b"{}"}[damage]
    edge.fetcher.step()
    assert (edge.version, len(edge.said)) == (0, 1)
    mirror.files[file] = whole
    edge.fetcher.step()
    assert (edge.version, edge.store.notice(), cloud.asked) == (1, "", []), "the control"


def test_a_mirror_that_is_gone_leaves_the_cloud(
    edge: Edge, cloud: Cloud, mirror: Mirror, releases: list[Release]
):
    publish(releases[0], cloud)
    failed_until_the_cloud_is_asked(edge, cloud)
    assert (edge.version, edge.said) == (1, ["in-force.json: status 404", "fetched release 1"])


def drip(request: BaseHTTPRequestHandler) -> None:
    """Answer with a header that never ends."""
    try:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(200):
            request.wfile.write(b"X: ")
            request.wfile.flush()
            time.sleep(0.02)
    except OSError:
        pass


def endless(request: BaseHTTPRequestHandler) -> None:
    """Answer with bytes without end, of which none are announced."""
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(1 << 10):
            request.wfile.write(bytes(1 << 16))
    except OSError:
        pass


def test_slow_and_endless_answers_end(mirror: Mirror):
    files = WebFolder(mirror.place, None, seconds=0.3)
    mirror.files["a"] = b"whole"
    mirror.answer = drip
    begun = time.monotonic()
    with pytest.raises(NotFetched, match=r"^a: not whole after 0.3 s$"):
        files.get("a", 1000)
    assert time.monotonic() - begun < 2
    mirror.answer = endless
    with pytest.raises(NotFetched, match=r"^a: at most 1000 bytes are read$"):
        files.get("a", 1000)
    mirror.answer = None
    assert files.get("a", 1000) == b"whole", "the control"


def test_a_mirror_can_mark_nobody(mirror: Mirror, releases: list[Release], edge: Edge, tmp_path: Path):
    """Whatever it sets, two edges ask in the same words, and in those of the signed pointer alone."""
    other = Edge(tmp_path / "other", mirror, mirror=WebFolder(mirror.place, None))
    publish(releases[0], mirror)
    for number, one in enumerate((edge, other)):
        mirror.marks = {
            "ETag": f'"{number}"',
            "Set-Cookie": f"id={number}",
            "Last-Modified": f"Thu, 01 Jan 1970 00:00:0{number} GMT",
        }
        one.fetcher.step()
        one.fetcher.step()
    asked = [POINTER_FILE, mirror.file(releases[0]), POINTER_FILE]
    assert mirror.asked == 2 * [f"/our/mirror/{name}" for name in asked]
    assert mirror.headers[:3] == mirror.headers[3:]
    assert {name for request in mirror.headers for name, _ in request} == {
        *("Host", "Accept-Encoding", "If-Modified-Since")
    }
    assert dict(mirror.headers[2])["If-Modified-Since"] == "Sun, 04 Jan 2026 00:00:00 GMT"


def test_what_the_agent_did_not_keep_is_not_told_to_the_mirror(mirror: Mirror):
    files = WebFolder(mirror.place, None)
    mirror.files[POINTER_FILE] = b"a word of its own"
    for issued in ("", "2026-01-04T00:00:00Z"):
        files.kept(files.pointer(), Told(issued=issued))
    files.pointer()
    assert ["If-Modified-Since" in dict(request) for request in mirror.headers] == [False, False, True]


def test_an_unchanged_pointer_does_not_come_again(mirror: Mirror):
    def unchanged(request: BaseHTTPRequestHandler) -> None:
        request.send_response(304)
        request.end_headers()

    files = WebFolder(mirror.place, None)
    mirror.answer = unchanged
    with pytest.raises(NotFetched, match="nothing new"):
        files.pointer()
    files.kept(b"the pointer", Told(issued="2026-01-04T00:00:00Z"))
    assert files.pointer() == b"the pointer"
    mirror.answer, mirror.files[POINTER_FILE] = None, b"a newer one"
    assert files.pointer() == b"a newer one"


def test_nobody_is_followed_elsewhere(mirror: Mirror):
    def moved(request: BaseHTTPRequestHandler) -> None:
        request.send_response(301)
        request.send_header("Location", "http://elsewhere.example/")
        request.end_headers()

    mirror.answer = moved
    with pytest.raises(NotFetched, match="status 301"):
        WebFolder(mirror.place, None).get("a", 10)

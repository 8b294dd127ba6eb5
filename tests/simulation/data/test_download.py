"""Downloads against a local server that behaves, and one that does not."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from tests.simulation.data.lamp_folders import user_split
from typer.testing import CliRunner

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.data import fetch as fetching
from fedperfit.simulation.data.cli import data_app
from fedperfit.simulation.data.download import BASE_URL, download, urls
from fedperfit.simulation.data.fetch import ATTEMPTS
from fedperfit.simulation.data.lamp import open_lamp

RATING = TASKS["LaMP_3"]
FIRST = "train_questions.json"
PAD = b" " * 300_000
"""Makes a body longer than what one read of a socket brings."""


@dataclass
class Site:
    """Files of a server, and how it misbehaves."""

    files: dict[str, bytes]
    """Body of each file by its path."""
    tag: str = '"one"'
    ranges: bool = True
    cut: list[int] = field(default_factory=list)
    """After how many bytes the next answers break off; then none does."""
    most: int = 1 << 30
    """Bytes in one partial answer at most."""
    busy: int = 0
    """Number of answers that are 503."""
    slow: list[float] = field(default_factory=list)
    """Seconds that the next answers take to begin."""
    moved: dict[str, str] = field(default_factory=dict)
    """Path to the address it has moved to."""
    kind: str = "application/json"
    length: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range header of each request."""
    url: str = ""

    def body(self, name: str) -> bytes:
        return next(body for path, body in self.files.items() if path.endswith(name))

    def change(self, name: str, body: bytes) -> None:
        self.files = {path: body if path.endswith(name) else old for path, old in self.files.items()}


class Handler(BaseHTTPRequestHandler):
    def __init__(self, site: Site, *args: object) -> None:
        self.site = site
        super().__init__(*args)  # type: ignore[arg-type]

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers["Range"]
        site.asked.append((self.path, wanted))
        if site.slow:
            time.sleep(site.slow.pop(0))
        if self.path in site.moved:
            self.send_response(302)
            self.send_header("Location", site.moved[self.path])
            self.end_headers()
            return
        body = site.files.get(self.path)
        if body is None or site.busy:
            site.busy = max(0, site.busy - 1)
            self.send_error(404 if body is None else 503)
            return
        start = 0
        if site.ranges and wanted and self.headers["If-Range"] == site.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        stop = min(len(body), start + site.most) if start else len(body)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
        if site.tag:
            self.send_header("ETag", site.tag)
        self.send_header("Content-Type", site.kind)
        if site.length:
            self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        end = site.cut.pop(0) if site.cut else stop
        self.wfile.write(body[start:end])


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "*")
    files = user_split()
    paths = urls(RATING, "user", "")
    site = Site({path: json.dumps(files[name]).encode() + PAD for name, path in paths.items()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, site))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    server.server_close()


def get(site: Site, to: Path, **changes: object) -> list[Path]:
    return download(RATING, to, base_url=site.url, backoff_s=0, **changes)  # type: ignore[arg-type]


def refusal(site: Site, to: Path) -> str:
    with pytest.raises(InputError) as caught:
        get(site, to)
    assert not (to / FIRST).exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_official_addresses() -> None:
    assert urls(TASKS["LaMP_2M"], "user")["dev_outputs.json"] == f"{BASE_URL}/LaMP_2/new/dev/dev_outputs.json"
    assert urls(TASKS["LaMP_2N"], "time")[FIRST] == f"{BASE_URL}/time/LaMP_2/train/{FIRST}"
    assert set(urls(RATING, "user")) == {*user_split()}


def test_a_download_opens(site: Site, tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int | None]]] = {}

    def note(name: str, done: int, total: int | None) -> None:
        seen.setdefault(name, []).append((done, total))

    to = tmp_path / "new" / "folder"
    paths = get(site, to, progress=note)
    assert {path.name: path.read_bytes() for path in paths} == {
        name: site.body(name) for name in user_split()
    }
    assert names(to) == {*user_split(), "source.json"}
    size = len(site.body(FIRST))
    assert seen[FIRST][0] == (0, size)
    assert seen[FIRST][-1] == (size, size)
    assert len(seen[FIRST]) > 3
    assert open_lamp(to, RATING, tmp_path / "cache").users("targets") == ["60", "61", "62"]
    asked = len(site.asked)
    assert get(site, to) == paths
    assert len(site.asked) == asked, "what is there is not fetched again"


def test_a_cut_connection_is_continued(site: Site, tmp_path: Path) -> None:
    site.cut = [100_000, 200_000]
    get(site, tmp_path / "to")
    assert (tmp_path / "to" / FIRST).read_bytes() == site.body(FIRST)
    ranges = [wanted for path, wanted in site.asked if path.endswith(FIRST)]
    assert ranges == [None, "bytes=100000-", "bytes=200000-"]


def _interrupted(site: Site, to: Path) -> None:
    """Leave 100,000 bytes of the first file in `to`, as a stopped download does."""
    site.cut = [100_000] * ATTEMPTS
    site.ranges = False
    assert "the same command continues" in refusal(site, to)
    assert (to / f"{FIRST}.part").stat().st_size == 100_000
    site.ranges = True
    site.cut, site.asked = [], []


def test_a_later_run_continues_a_part(site: Site, tmp_path: Path) -> None:
    _interrupted(site, tmp_path)
    get(site, tmp_path)
    assert site.asked[0][1] == "bytes=100000-"
    assert (tmp_path / FIRST).read_bytes() == site.body(FIRST)
    assert not [name for name in names(tmp_path) if ".part" in name]


def test_a_whole_part_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    """Killed between the last byte and the rename."""
    _interrupted(site, tmp_path)
    (tmp_path / f"{FIRST}.part").write_bytes(site.body(FIRST))
    get(site, tmp_path)
    assert not [path for path, _ in site.asked if path.endswith(FIRST)]
    assert (tmp_path / FIRST).read_bytes() == site.body(FIRST)


def test_answers_shorter_than_asked_for_are_put_together(site: Site, tmp_path: Path) -> None:
    site.most = 50_000
    site.cut = [100_000]
    get(site, tmp_path)
    assert (tmp_path / FIRST).read_bytes() == site.body(FIRST)


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_a_changed_file_starts_anew(
    site: Site, tmp_path: Path, ignores_if_range: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupted(site, tmp_path)
    site.change(FIRST, site.body(FIRST).replace(b"review", b"REVIEW"))
    site.tag = '"two"'
    if ignores_if_range:
        monkeypatch.setattr(Handler, "do_GET", _careless(Handler.do_GET))
    get(site, tmp_path)
    assert (tmp_path / FIRST).read_bytes() == site.body(FIRST)


def _careless(do_get):  # type: ignore[no-untyped-def]
    def answer(self: Handler) -> None:
        if self.headers["If-Range"]:
            self.headers.replace_header("If-Range", self.site.tag)
        do_get(self)

    return answer


def test_another_size_under_the_same_tag_starts_anew(site: Site, tmp_path: Path) -> None:
    _interrupted(site, tmp_path)
    site.change(FIRST, b'[{"other": 1}]' + PAD)
    get(site, tmp_path)
    assert (tmp_path / FIRST).read_bytes() == site.body(FIRST)


def test_a_server_without_ranges_starts_anew(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.cut = [100_000, 200_000]
    get(site, tmp_path)
    assert (tmp_path / FIRST).read_bytes() == site.body(FIRST)


def test_without_a_tag_nothing_is_continued(site: Site, tmp_path: Path) -> None:
    site.tag = ""
    site.cut = [100_000]
    get(site, tmp_path)
    assert {wanted for _, wanted in site.asked} == {None}
    assert (tmp_path / FIRST).read_bytes() == site.body(FIRST)


def test_a_part_of_another_address_starts_anew(site: Site, tmp_path: Path) -> None:
    _interrupted(site, tmp_path)
    site.files |= {f"/time{path}": body for path, body in site.files.items()}
    get(site, tmp_path, split="time")
    assert site.asked[0][1] is None


def test_a_body_that_always_breaks_off_is_given_up(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.cut = [100_000] * 10
    message = refusal(site, tmp_path)
    assert site.url in message
    assert "the same command continues" in message
    assert len(site.asked) == ATTEMPTS
    assert names(tmp_path) == {"source.json", f"{FIRST}.part", f"{FIRST}.part.json"}


def test_a_cut_body_without_length_is_not_json(site: Site, tmp_path: Path) -> None:
    site.length = False
    site.cut = [200]
    message = refusal(site, tmp_path)
    assert f"{FIRST}, line 1, column " in message
    assert "broken JSON" in message
    assert names(tmp_path) == {"source.json"}


@pytest.mark.parametrize("kind", ["text/html; charset=UTF-8", "application/json"])
def test_an_html_page(site: Site, tmp_path: Path, kind: str) -> None:
    site.kind = kind
    site.change(FIRST, b"\n<!DOCTYPE html><title>Not here</title>")
    message = refusal(site, tmp_path)
    assert f"/LaMP_3/train/{FIRST}: the server answers with an HTML page" in message
    assert len(site.asked) == 1
    assert names(tmp_path) == {"source.json"}


def test_other_answers_than_json(site: Site, tmp_path: Path) -> None:
    site.change(FIRST, b"plain text")
    assert f"{FIRST}: expected JSON" in refusal(site, tmp_path)
    site.change(FIRST, b"")
    assert "an empty file" in refusal(site, tmp_path)


def test_404_is_told_at_once(site: Site, tmp_path: Path) -> None:
    site.files = {}
    assert "the server answers 404 Not Found" in refusal(site, tmp_path)
    assert len(site.asked) == 1


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.busy = 2
    get(site, tmp_path)
    assert (tmp_path / FIRST).exists()
    other = tmp_path / "other"
    site.busy = 100
    assert "the server answers 503" in refusal(site, other)


def test_no_server(site: Site, tmp_path: Path) -> None:
    site.url = "http://127.0.0.1:9"
    assert "the connection failed" in refusal(site, tmp_path)
    for address in ("nonsense", "ftp://127.0.0.1", "http://127.0.0.1:port"):
        site.url = address
        assert refusal(site, tmp_path).startswith(f"{address}: ")


def test_a_server_that_says_nothing_is_asked_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (fetching.TIMEOUT.connect, fetching.TIMEOUT.read) == (10, 60)
    monkeypatch.setattr(fetching, "TIMEOUT", httpx.Timeout(0.3))
    site.slow = [1.0]
    get(site, tmp_path)
    assert [path.endswith(FIRST) for path, _ in site.asked].count(True) == 2
    assert (tmp_path / FIRST).read_bytes() == site.body(FIRST)
    site.slow = [1.0] * ATTEMPTS
    assert "the connection failed (timed out)" in refusal(site, tmp_path / "other")


def test_a_file_that_has_moved_is_continued_where_it_is(site: Site, tmp_path: Path) -> None:
    before = next(path for path in site.files if path.endswith(FIRST))
    site.files[f"/moved{before}"] = site.files.pop(before)
    site.moved = {before: f"/moved{before}"}
    site.cut = [100_000]
    get(site, tmp_path)
    assert (tmp_path / FIRST).read_bytes() == site.body(FIRST)
    assert (f"/moved{before}", "bytes=100000-") in site.asked
    site.moved = {before: before}
    assert "redirects" in refusal(site, tmp_path / "other")


def test_the_proxy_of_the_environment_is_used(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTP_PROXY", site.url)
    monkeypatch.setenv("http_proxy", site.url)
    site.url = "http://lamp.invalid"
    site.files = {f"{site.url}{path}": body for path, body in site.files.items()}
    get(site, tmp_path)
    assert (tmp_path / FIRST).read_bytes() == site.body(FIRST)
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:9")
    assert "the proxy that the environment names" in refusal(site, tmp_path / "other")


def test_two_splits_never_mix(site: Site, tmp_path: Path) -> None:
    get(site, tmp_path)
    with pytest.raises(InputError, match="not from the time split of LaMP_3"):
        get(site, tmp_path, split="time")
    with pytest.raises(InputError, match="expected user or time"):
        get(site, tmp_path, split="dev")


def test_command_line(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = CliRunner().invoke
    to = tmp_path / "got"
    done = run(data_app, ["download", "--task", "LaMP_3", "--to", str(to), "--url", site.url])
    assert done.exit_code == 0, done.output
    assert "CC BY-NC-SA 4.0" in done.output
    shown = run(data_app, ["show", str(to), "--task", "LaMP_3"])
    assert shown.exit_code == 0, shown.output
    for text in ("official, user split", "2 / 2 / 2", "others: items"):
        assert text in shown.output
    wrong = run(data_app, ["show", str(to), "--task", "LaMP_9"])
    assert isinstance(wrong.exception, InputError)


@pytest.mark.parametrize("task", ["messages", "own"])
def test_a_task_of_ones_own_has_no_official_files(tmp_path: Path, task: str):
    if task == "own":
        task = str(tmp_path / "own.toml")
        words = 'name = "LaMP_3"\nkind = "labels"\nfields = ["x"]\ntarget = "y"\nlabels = ["a", "b"]\n'
        Path(task).write_text(words)
    done = CliRunner().invoke(data_app, ["download", "--task", task, "--to", str(tmp_path / "to")])
    assert isinstance(done.exception, InputError)
    assert "none of LaMP's own tasks" in str(done.exception)
    assert not (tmp_path / "to").exists()

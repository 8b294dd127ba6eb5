"""A release put on a hub, seen by a hub of HTTP alone."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from tests.cloud.fake_grid import HEADER, SHAPE, perturbed
from typer.testing import CliRunner

from fedperfit.cloud.cli.main import app
from fedperfit.protocol.portable.hub import push_release
from fedperfit.protocol.portable.release_folder import from_pretrained
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.signing import SigningKey


class Hub(BaseHTTPRequestHandler):
    """The calls of a hub that an upload of small files makes; `asked` keeps each path and body."""

    asked: ClassVar[list[tuple[str, str]]] = []
    refusing = False

    def log_message(self, *_):
        """Say nothing."""

    def do_POST(self):
        """Answer a call as the hub does."""
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        path = self.path.partition("?")[0]
        self.asked.append((path, body))
        if path.endswith("/repos/create"):
            told = {"url": f"http://{self.headers['host']}/ada/films", "name": "ada/films"}
            self.answer(403 if self.refusing else 200, told)
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            told = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]
            self.answer(200, {"files": told})
        else:
            url = f"http://{self.headers['host']}/ada/films/commit/1234567"
            self.answer(200, {"commitUrl": url, "commitOid": "1234567", "pullRequestUrl": None})

    def do_GET(self):
        """Know no file, as a new repository."""
        self.answer(404, {"error": "not found"})

    do_HEAD = do_GET

    def answer(self, status, value):
        """Write a JSON reply."""
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(Hub, "asked", [])
    monkeypatch.setattr(Hub, "refusing", False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def release():
    return Release.first(perturbed(Shift.identity(SHAPE, seed=0), "release"), HEADER, SigningKey())


def test_the_signed_file_and_the_card_are_one_commit(hub, release, tmp_path):
    (tmp_path / "release.safetensors").write_bytes(release.to_bytes())
    asked = ["release", "push", str(tmp_path / "release.safetensors"), "ada/films", "--private"]
    done = CliRunner().invoke(app, [*asked, "--base-model", "nobody/model"])
    assert done.exit_code == 0, done.output
    assert "/ada/films" in done.output
    made = json.loads(Hub.asked[0][1])
    assert (made["name"], made["organization"], made["visibility"]) == ("films", "ada", "private")
    (commit,) = [body for path, body in Hub.asked if "/commit/" in path]
    lines = [json.loads(line) for line in commit.splitlines()]
    assert lines[0]["value"]["summary"] == f"Release {release.version} of {HEADER.task}"
    folder = tmp_path / "there"
    folder.mkdir()
    for line in lines[1:]:
        (folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
    assert from_pretrained(str(folder), release.key).to_bytes() == release.to_bytes()
    assert "base_model: nobody/model" in (folder / "README.md").read_text()
    assert len(list(folder.iterdir())) == 2


def test_a_refusal_is_one_line_without_the_token(hub, release, monkeypatch):
    monkeypatch.setattr(Hub, "refusing", True)
    with pytest.raises(InputError, match="'ada/films': not put on the hub") as caught:
        push_release(release, "ada/films", "a model")
    assert "\n" not in str(caught.value)
    assert "hf_secret" not in str(caught.value)
    with pytest.raises(InputError, match="not put on the hub"):
        push_release(release, "no/such/name", "a model")

"""A request of the machine itself is counted byte for byte, and it is said why there is no answer."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.simulation.recorder import Recorder

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.enrolment.asking import NoAnswer, answer
from fedperfit.edge.sandbox.traffic import Traffic, read_traffic
from fedperfit.protocol.system.processes import wait_until
from fedperfit.protocol.trust.certificates import issue, new_authority

BODY = b"answer" * 1000


class Cloud(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer by a byte now and then, each long before anybody's patience with the next one ends."""
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        with suppress(OSError):
            for _ in range(1000):
                self.wfile.write(b" ")
                time.sleep(0.1)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *about: object) -> None:
        pass


@contextmanager
def cloud(tls: Path) -> Iterator[int]:
    """A server over TLS, with what it needs in `tls`; its port."""
    authority = new_authority("test")
    server = issue(authority, ["127.0.0.1"])
    (tls / "ca.crt").write_bytes(authority.certificate)
    (tls / "server.crt").write_bytes(server.certificate)
    (tls / "server.key").write_bytes(server.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.crt", tls / "server.key")
    with HTTPServer(("127.0.0.1", 0), Cloud) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_port
        listening.shutdown()


def test_what_was_asked_and_answered_is_counted_as_the_network_carried_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "ada")
    home.folder.mkdir()
    with cloud(tmp_path) as port, Recorder(tmp_path, port, ["ada"]).running() as recorder:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        address = f"127.0.0.1:{recorder.ports['ada']}"
        with Traffic(home.traffic) as meanwhile:
            for _ in range(2):
                with answer(home, address, trusted, "POST", "/", 30, content=b"question") as response:
                    assert b"".join(response.iter_raw()) == BODY
            meanwhile.count(10, 20)

        def counted() -> list[int]:
            ((up, down),) = read_traffic(home.traffic).values()
            return [up - 10, down - 20]

        assert not home.asking.exists()
        assert min(counted()) > 500
        assert counted()[1] > 2 * len(BODY)
        assert wait_until(lambda: counted() == recorder.counted["ada"], 5), (counted(), recorder.counted)


def test_it_is_said_why_nobody_answers(tmp_path: Path) -> None:
    home = Home(tmp_path / "ada")
    home.folder.mkdir()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        refused = pytest.raises(NoAnswer, match="Connection refused")
        with refused, answer(home, address, ssl.create_default_context(), "GET", "/", 30):
            pass


def test_a_certificate_of_somebody_else_is_no_answer(tmp_path: Path) -> None:
    home = Home(tmp_path / "ada")
    home.folder.mkdir()
    refused = pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED")
    trusted = ssl.create_default_context()
    with cloud(tmp_path) as port, refused, answer(home, f"127.0.0.1:{port}", trusted, "GET", "/", 30):
        pass


def test_an_answer_that_is_dealt_out_for_ever_ends_in_time(tmp_path: Path) -> None:
    """`join` asks every hour, and meanwhile starts nothing again and does not stop when it is told to."""
    home = Home(tmp_path / "ada")
    home.folder.mkdir()
    begun = time.monotonic()
    with cloud(tmp_path) as port:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        asked = answer(home, f"127.0.0.1:{port}", trusted, "GET", "/", 1)
        with pytest.raises(NoAnswer, match="no whole answer in 1 s"), asked as response:
            response.read()
    assert time.monotonic() - begun < 10

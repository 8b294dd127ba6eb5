"""Who listens on a port is told, and whether an address answers over IPv4 and IPv6."""

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import psutil
import pytest

from fedperfit.protocol.doctor import network
from fedperfit.protocol.doctor.findings import Verdict
from fedperfit.protocol.doctor.network import port, reach
from fedperfit.protocol.trust.certificates import issue, new_authority

AUTHORITY = new_authority("x")


@contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def serving(tmp_path, *names: str) -> Iterator[int]:
    """A TLS server that shakes hands with everybody."""
    own = issue(AUTHORITY, names)
    for name, content in (("crt", own.certificate), ("key", own.key)):
        (tmp_path / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    with suppress(ssl.SSLError), context.wrap_socket(server.accept()[0], server_side=True):
                        pass

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def trusted() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=AUTHORITY.certificate.decode())


def test_who_holds_a_port_is_told():
    with listening() as number:
        (own, up, down) = ({os.getpid()}, True, False)
        assert port(number, "port", own=own, up=up).verdict is Verdict.OK
        held = port(number, "port", own=(), up=down)
        assert held.verdict is Verdict.WRONG
        assert str(os.getpid()) in held.said
        assert "stop it" in held.advice
    assert port(number, "port", own=(), up=down).verdict is Verdict.OK
    assert port(number, "port", own=own, up=up).verdict is Verdict.WRONG


def test_a_port_of_another_account_is_told(monkeypatch):
    one = SimpleNamespace(laddr=SimpleNamespace(port=8443), status=psutil.CONN_LISTEN, pid=None)
    monkeypatch.setattr(psutil, "net_connections", lambda kind: [one])
    assert "another account" in port(8443, "port", own=(), up=False).said


def test_an_address_that_answers_is_well(tmp_path):
    with serving(tmp_path, "127.0.0.1") as number:
        (told,) = reach("127.0.0.1", number, trusted(), "look")
        assert told.verdict is Verdict.OK
        assert "IPv4" in told.said


def test_an_address_with_another_certificate_is_wrong(tmp_path):
    with serving(tmp_path, "cloud.example.org") as number:
        (told,) = reach("127.0.0.1", number, trusted(), "look")
        assert told.verdict is Verdict.WRONG
        assert "certificate" in told.said


def test_an_address_where_nobody_listens_is_wrong():
    with listening() as number:
        pass
    (told,) = reach("127.0.0.1", number, trusted(), "look")
    assert (told.verdict, told.advice) == (Verdict.WRONG, "look")


def test_a_name_without_address_is_wrong():
    (told,) = reach("nobody.invalid", 8443, trusted(), "look")
    assert told.verdict is Verdict.WRONG


@pytest.mark.parametrize("answers", ["127.0.0.1", "::1", ""])
def test_a_family_that_does_not_answer_is_a_warning_where_the_other_does(monkeypatch, answers):
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 1, 0, 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(
        network, "_problem", lambda host, address, *_: "" if address == answers else "no answer"
    )
    verdicts = sorted(one.verdict for one in reach("cloud.example.org", 1, trusted(), "look"))
    assert verdicts == (["ok", "warning"] if answers else ["wrong", "wrong"])

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fedperfit.edge.sandbox import uplink
from fedperfit.edge.sandbox.uplink import SOCKET, Uplink
from fedperfit.protocol.system.errors import InputError


@contextmanager
def echo(host: str = "127.0.0.1") -> Iterator[str]:
    """A server that sends back all it was sent once the other side has ended; its address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((host, 0))
        server.listen(64)

        def serve() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                with one, one.makefile("rb") as file:
                    one.sendall(file.read())

        threading.Thread(target=serve, daemon=True).start()
        name = f"[{host}]" if ":" in host else host
        yield f"{name}:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def connect(folder: Path) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(30)
    one.connect(str(folder / SOCKET))
    return one


def sent_back(one: socket.socket, data: bytes) -> bytes:
    def send() -> None:
        with suppress(OSError):  # it may be closed at once
            one.sendall(data)
            one.shutdown(socket.SHUT_WR)

    with one, one.makefile("rb") as file:
        sender = threading.Thread(target=send)
        sender.start()
        received = file.read()
        sender.join()
        return received


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_bytes_pass_both_ways_unchanged(tmp_path: Path, host: str) -> None:
    data = bytes(range(256)) * 8192
    try:
        with echo(host) as address, Uplink(tmp_path / "uplink", address):
            assert sent_back(connect(tmp_path / "uplink"), data) == data
    except OSError:
        pytest.skip(f"no {host} here")


def test_the_socket_is_the_owners_and_goes_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "uplink"
    for _ in range(2):
        with Uplink(folder, "127.0.0.1:9"):
            assert folder.stat().st_mode & 0o777 == 0o700
            assert (folder / SOCKET).stat().st_mode & 0o777 == 0o600
        assert not (folder / SOCKET).exists()


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name of the cloud's, which its owner lets lead to this machine now."""
    ask = socket.getaddrinfo
    name = "cloud.example.org"

    def answered(host: str, *about: Any, **more: Any) -> Any:
        return ask("127.0.0.1" if host == name else host, *about, **more)

    monkeypatch.setattr(socket, "getaddrinfo", answered)
    return name


def test_unguarded_a_name_leads_to_any_program_of_this_machine(
    tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink, "_leads_here", lambda writer: False)
    with echo() as address, Uplink(tmp_path / "uplink", address.replace("127.0.0.1", named)):
        assert sent_back(connect(tmp_path / "uplink"), b"PING") == b"PING"


def test_a_name_does_not_lead_to_this_machine(tmp_path: Path, named: str) -> None:
    with echo() as address, Uplink(tmp_path / "uplink", address.replace("127.0.0.1", named)) as way:
        assert sent_back(connect(tmp_path / "uplink"), b"PING") == b""
        assert way.problem == f"the name {named} leads to this machine itself"


def reached(folder: Path, host: str, canonical: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What comes back of a message to a host on a machine `box` whose network tells its canonical name."""
    ask = socket.getaddrinfo

    def answered(host: str, *about: Any, **more: Any) -> Any:
        return [(*one[:3], canonical, one[4]) for one in ask("127.0.0.1", *about, **more)]

    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    monkeypatch.setattr(socket, "getaddrinfo", answered)
    with echo() as address, Uplink(folder / "uplink", address.replace("127.0.0.1", host)):
        return sent_back(connect(folder / "uplink"), b"PING")


@pytest.mark.parametrize("host", ["localhost", "box", "box.example.org", "Box.example.org."])
def test_a_name_of_this_machine_does(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reached(tmp_path, host, "box.example.org", monkeypatch) == b"PING"


def test_a_network_gives_this_machine_no_name_of_the_clouds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reached(tmp_path, "cloud.example.org", "cloud.example.org", monkeypatch) == b""


def test_a_cloud_that_is_not_there_closes_the_connection(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with Uplink(tmp_path / "uplink", f"127.0.0.1:{unused.getsockname()[1]}"):
            assert sent_back(connect(tmp_path / "uplink"), b"") == b""


def test_it_holds_so_many_connections_and_no_more(tmp_path: Path) -> None:
    with echo() as address, Uplink(tmp_path / "uplink", address), ExitStack() as stack:
        held = [stack.enter_context(connect(tmp_path / "uplink")) for _ in range(32)]
        assert sent_back(connect(tmp_path / "uplink"), b"") == b"", "closed at once"
        held[0].close()
        assert sent_back(held[1], b"x") == b"x"


def test_connections_that_are_open_do_not_hold_up_its_end(tmp_path: Path) -> None:
    with echo() as address, ExitStack() as stack:
        with Uplink(tmp_path / "uplink", address):
            one = stack.enter_context(connect(tmp_path / "uplink"))
            one.sendall(b"x")
        assert not (tmp_path / "uplink" / SOCKET).exists()


def test_a_path_too_long_for_a_socket_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shorter path"), Uplink(tmp_path / ("x" * 120), "127.0.0.1:9"):
        pass

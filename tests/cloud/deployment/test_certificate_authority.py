"""A change of the certificate authority: which edges still reach the cloud, and kills at every step."""

import errno
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedperfit.cloud.deployment import certificate_authority as module
from fedperfit.cloud.deployment.certificate_authority import (
    authorities,
    mend_certificate,
    publish_authorities,
    renew_certificate,
    rotate_authority,
    take_over,
    valid_until,
)
from fedperfit.cloud.deployment.home import CloudHome, init, read_cloud
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.enrolment.invitations import changing
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_atomic, write_json
from fedperfit.protocol.trust.authorities import Authorities, parse_authorities
from fedperfit.protocol.trust.signing import SigningKey


@pytest.fixture
def home(tmp_path: Path) -> CloudHome:
    return made(tmp_path / "cloud")


def made(folder: Path) -> CloudHome:
    home = CloudHome(folder)
    init(home, "quickstart", {})
    publish_authorities(home)
    return home


def stated(home: CloudHome) -> Authorities:
    key = CloudReleases(home.folder).key()
    return parse_authorities((home.tls / "authorities.json").read_bytes(), key.public)


def greets(home: CloudHome, trusted: str) -> bool:
    """Whether an edge that trusts these authorities takes this cloud for its own, by a handshake."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(home.tls / "server.crt", home.tls / "server.key")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context(cadata=trusted)
    ends = (
        client.wrap_bio(back, there, server_hostname="127.0.0.1"),
        server.wrap_bio(there, back, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True


def due(home: CloudHome) -> None:
    write_json(home.tls / "next.json", {"from": (datetime.now(UTC) - timedelta(seconds=1)).isoformat()})


def test_an_edge_that_learned_of_the_new_authority_is_never_lost(home):
    settings, before = read_cloud(home), authorities(home)[0]
    assert not take_over(home, settings), "nothing is due"
    rotate_authority(home, 30)
    assert stated(home).number == 2
    assert stated(home).certificates == tuple(authorities(home))
    assert stated(home).certificates[0] == before
    learned = stated(home).pem
    assert greets(home, before)
    assert greets(home, learned)
    assert not take_over(home, settings), "its day has not come"
    due(home)
    assert take_over(home, settings)
    publish_authorities(home)
    assert greets(home, learned)
    assert not greets(home, before), "the authority did change"
    assert stated(home).number == 3
    assert stated(home).certificates == tuple(authorities(home)) == (learned.removeprefix(before),)
    assert greets(home, stated(home).pem)
    assert sorted(path.name for path in home.tls.iterdir()) == [
        *("authorities.json", "ca.crt", "ca.key", "server.crt", "server.key")
    ]


def test_one_change_at_a_time(home):
    rotate_authority(home, 30)
    with pytest.raises(InputError, match="being changed already"):
        rotate_authority(home, 30)
    assert stated(home).number == 2


def test_a_statement_is_signed_anew_when_the_key_or_its_content_changed(home):
    publish_authorities(home)
    assert stated(home).number == 1, "it says nothing new"
    SigningKey().write(home.folder / "signing.pem")
    publish_authorities(home)
    assert stated(home).number == 2


def test_the_servers_certificate_is_renewed(home):
    before = read_json(home.tls / "authorities.json")
    old = (home.tls / "server.crt").read_bytes()
    until = renew_certificate(home, read_cloud(home))
    assert until == valid_until(home.tls / "server.crt")
    assert (home.tls / "server.crt").read_bytes() != old
    assert greets(home, authorities(home)[0])
    publish_authorities(home)
    assert read_json(home.tls / "authorities.json") == before


def test_a_renewal_that_was_killed_or_found_no_room_is_made_again(home, monkeypatch):
    def full(path: Path, data: bytes) -> None:
        if path.name == "server.crt":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomic(path, data)

    settings = read_cloud(home)
    with monkeypatch.context() as patched:
        patched.setattr("fedperfit.cloud.deployment.home.write_atomic", full)
        with pytest.raises(OSError, match="No space left"):
            renew_certificate(home, settings)
    mend_certificate(home, settings)
    assert greets(home, authorities(home)[0])
    whole = (home.tls / "server.crt").read_bytes()
    mend_certificate(home, settings)
    assert (home.tls / "server.crt").read_bytes() == whole


def test_what_killed_writers_left_of_keys_is_removed_by_the_next_one(home):
    left = [home.tls / ".server.key.x.part", home.tls / "next.key", home.tls / "next.crt"]
    left += [home.folder / ".signing.next.pem.x.part", home.folder / "releases" / ".in-force.json.x.part"]
    for folder in (home.invitations, home.nodes):
        left.append(folder / ".ada.json.x.part")
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"a key")
    publish_authorities(home)
    with changing(home):
        pass
    assert [path for path in left if path.exists()] == []
    assert greets(home, authorities(home)[0])


class Killed(BaseException):
    pass


class Kills:
    """Ends a change before or after the n-th thing that it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps, self.at = 0, -1
        for name in ("write_atomic", "write_json", "write_server_certificate"):
            monkeypatch.setattr(module, name, self._step(getattr(module, name)))
        monkeypatch.setattr(Path, "unlink", self._step(Path.unlink))

    def interrupt(self, at: int, change: Callable[[], object]) -> bool:
        """Make a change; return whether it ended before the n-th step."""
        self.steps, self.at = 0, at
        try:
            change()
        except Killed:
            return False
        finally:
            self.at = -1
        return True

    def _step(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **named: Any) -> Any:
            self._pass()
            done = change(*arguments, **named)
            self._pass()
            return done

        return changed

    def _pass(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Killed


def test_a_kill_at_any_step_of_a_change_loses_no_edge(tmp_path, monkeypatch):
    kills = Kills(monkeypatch)
    for at in range(1, 100):
        home = made(tmp_path / str(at))
        settings, before = read_cloud(home), authorities(home)[0]
        ended = kills.interrupt(at, lambda home=home: rotate_authority(home, 0))
        publish_authorities(home)  # as the next `up` does
        assert greets(home, before)
        assert greets(home, stated(home).pem)
        if len(authorities(home)) == 1:
            rotate_authority(home, 0)
        learned = stated(home).pem
        ended &= kills.interrupt(at, lambda home=home, settings=settings: take_over(home, settings))
        take_over(home, settings)
        publish_authorities(home)
        assert greets(home, learned)
        assert greets(home, stated(home).pem)
        assert not greets(home, before)
        if ended:
            break
    assert at > 12, "every step was tried"

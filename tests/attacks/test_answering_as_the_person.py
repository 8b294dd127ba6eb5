"""H1: an account of the person's machine asks the SuperNode's port for the cloud's messages."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.deployment.supernode import SuperNode
from fedperfit.protocol.system.files import write_atomic, write_json
from fedperfit.protocol.system.flower import environment, free, free_ports
from fedperfit.protocol.system.processes import Children, wait_until
from fedperfit.protocol.trust.certificates import new_authority

ACQUIRE = "/v1/runtime/acquire-task"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A joined edge's folder whose cloud cannot be reached; the SuperNode's port is open all the same."""
    home = Home(tmp_path / "ada lovelace")
    key = ec.generate_private_key(ec.SECP384R1())
    write_atomic(
        home.node / "node.key", key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )
    write_atomic(home.node / "ca.crt", new_authority("nobody").certificate)
    (port,) = free_ports(1)
    write_json(home.node / "address.json", {"address": f"127.0.0.1:{port}"})
    return home


@contextmanager
def running(home: Home, command: list[str]) -> Iterator[str]:
    """The SuperNode, for as long as the attack lasts; yields its port's address."""
    with Children() as children:
        log = home.node / "supernode.log"
        variables = environment(home.node / "flower", FLWR_LOG_LEVEL="DEBUG")
        child = children.start("supernode", command, log=log, environment=variables)
        port = command[-1].split("--host 127.0.0.1 --port ")[1].split()[0]
        assert wait_until(lambda: child.process.poll() is not None or not free(int(port)), 120)
        yield f"http://127.0.0.1:{port}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("guarded", [False, True])
def test_messages_are_taken_only_where_no_secret_is_asked_for(home: Home, guarded: bool) -> None:
    command = SuperNode(home, unconfined=True).command()
    secret = home.node / "superexec.secret"
    assert (secret.stat().st_mode & 0o777, len(secret.read_bytes())) == (0o600, 32)
    if not guarded:
        command[-1] = command[-1].replace(f"--superexec-auth-secret-file '{secret}'", "")
    with running(home, command) as address:
        headers = {"content-type": "application/protobuf"}
        answer = httpx.post(address + ACQUIRE, headers=headers, timeout=30)
        assert answer.status_code == (401 if guarded else 200), answer.text
        log = home.node / "supernode.log"
        assert wait_until(lambda: f'{ACQUIRE} HTTP/1.1" 200' in log.read_text(), 120), "its own SuperExec may"


def test_each_start_has_a_secret_of_its_own(home: Home) -> None:
    secret = home.node / "superexec.secret"
    first = (SuperNode(home, unconfined=True).command(), secret.read_bytes())
    second = (SuperNode(home, unconfined=True).command(), secret.read_bytes())
    assert first[1] != second[1]
    assert subprocess.run(["sh", "-n", "-c", first[0][-1]], check=False).returncode == 0

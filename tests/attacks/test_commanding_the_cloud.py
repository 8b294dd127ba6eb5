"""C3: somebody on the cloud's machine commands its SuperLink, which would run code of theirs."""

import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cloud.deployment.clouds import make_cloud

from fedperfit.cloud.deployment.callers import SOCKETS
from fedperfit.cloud.deployment.connection import superlink_address, trusting, write_connection
from fedperfit.cloud.deployment.home import CONNECTION, CloudHome
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.deployment.up import superlink_command, superlink_ready
from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.system.flower import environment, executable, free
from fedperfit.protocol.system.processes import Children, wait_until

NOBODY = 65534
TOKEN_ASKED = ("-P", "-m", "fedperfit.cloud.deployment.superlink")
LISTING = "/v1/control/list-runs"

pytestmark = pytest.mark.timeout(300)


@contextmanager
def superlink(folder: Path, *, guarded: bool) -> Iterator[tuple[CloudHome, CloudSettings]]:
    """The cloud's SuperLink as `up` starts it, or Flower's own without secrets."""
    home, settings = make_cloud(folder)
    write_connection(home, settings)
    command = superlink_command(home, settings)
    assert tuple(command[1:4]) == TOKEN_ASKED
    if not guarded:
        secret = command.index("--superexec-auth-secret-file")
        command = [executable("flower-superlink"), *command[5:secret], *command[secret + 2 :]]
    with Children() as children:
        log = home.logs / "superlink.log"
        children.start("superlink", command, log=log, environment=home.environment(), folder=home.flower)
        assert wait_until(lambda: not free(settings.superlink_port), 120), log.read_text()
        yield home, settings


@pytest.fixture(scope="module", params=[False, True], ids=["off", "on"])
def cloud(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[CloudHome, CloudSettings, bool]]:
    with superlink(tmp_path_factory.mktemp("c") / "cloud", guarded=request.param) as (home, settings):
        yield home, settings, request.param


def status(context: ssl.SSLContext, settings: CloudSettings, path: str, *headers: str) -> int:
    """Post an empty request to the SuperLink and return the status of its answer."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/protobuf", "Content-Length: 0"]
    request = "\r\n".join([*lines, "Connection: close", *headers, "", ""]).encode()
    with (
        socket.create_connection(("127.0.0.1", settings.superlink_port), timeout=60) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as secured,
    ):
        secured.sendall(request)
        return int(secured.recv(100).split()[1])


def as_nobody(act: Callable[[], int]) -> int:
    """Return what `act` returns in a process of another account."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        result = 0
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            result = act()
        finally:
            os.write(write, str(result).encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as said:
        return int(said.read())


def test_flowers_own_command_without_the_token(
    cloud: tuple[CloudHome, CloudSettings, bool], tmp_path: Path
) -> None:
    """With the authority's certificate alone, as a sandboxed edge on this machine has it."""
    home, settings, guarded = cloud
    lines = [f"[superlink.{CONNECTION}]", f'address = "{superlink_address(settings)}"']
    lines.append(f'root-certificates = "{home.tls / "ca.crt"}"')
    write_atomic(tmp_path / "config.toml", "\n".join(lines).encode())
    command = [executable("flwr"), "list", CONNECTION, "--format", "json"]
    for state, obeyed in ((tmp_path, not guarded), (home.flower, True)):
        done = subprocess.run(command, env=environment(state), capture_output=True, text=True, check=False)
        assert ('"runs"' in done.stdout) is obeyed, done.stdout + done.stderr


def test_every_command_asks_for_the_token(cloud: tuple[CloudHome, CloudSettings, bool]) -> None:
    home, settings, guarded = cloud
    context, token = trusting(home), home.control_token.read_text()
    assert home.control_token.stat().st_mode & 0o777 == 0o600
    wrong = f"Authorization: Bearer {token[:-1]}{'0' if token[-1] != '0' else '1'}"
    for command in ("list-runs", "start-run", "stop-run", "stream-logs", "register-node", "list-nodes"):
        for headers in ((), ("Authorization: Bearer ",), (wrong,)):
            answer = status(context, settings, f"/v1/control/{command}", *headers)
            assert (answer == 401) is (guarded or headers == ("Authorization: Bearer ",)), (command, answer)
    assert status(context, settings, LISTING, f"Authorization: Bearer {token}") == 200
    assert status(context, settings, "/v1/control/refresh-auth-tokens") != 200


def test_superexec_asks_for_the_secret(cloud: tuple[CloudHome, CloudSettings, bool]) -> None:
    home, settings, guarded = cloud
    answer = status(trusting(home), settings, "/v1/runtime/acquire-task")
    assert answer == (401 if guarded else 200)


@pytest.mark.skipif(
    not SOCKETS.exists() or os.geteuid() != 0, reason="only root on Linux can act as another account"
)
def test_another_account_is_not_answered_even_with_the_token(
    cloud: tuple[CloudHome, CloudSettings, bool],
) -> None:
    """It may have read a task's token, say, in the list of processes."""
    home, settings, guarded = cloud
    token = f"Authorization: Bearer {home.control_token.read_text()}"
    context = trusting(home)

    def attack(*more: str) -> int:
        return as_nobody(lambda: status(context, settings, LISTING, token, *more))

    assert attack() == (403 if guarded else 200)
    with socket.create_connection(("127.0.0.1", settings.superlink_port)) as own:
        own_port = own.getsockname()[1]
        assert attack(f"X-Forwarded-For: 127.0.0.1:{own_port}") == (403 if guarded else 200)
    assert status(context, settings, LISTING, token) == 200


def test_a_superlink_that_obeys_anybody_is_not_taken_for_ready(
    cloud: tuple[CloudHome, CloudSettings, bool],
) -> None:
    home, settings, guarded = cloud
    if guarded:
        assert superlink_ready(home, settings)
    else:
        with pytest.raises(RunFailed, match="without a token"):
            superlink_ready(home, settings)

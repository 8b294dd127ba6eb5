"""The cloud's edge-facing port, with nothing but the authority's certificate in hand."""

import socket
import ssl
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from tests.cloud.deployment.clouds import asked, make_cloud, needs_nginx, running, trusting

from fedperfit.cloud.deployment.home import CloudHome, init, read_cloud
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.deployment.signer import ask_for_release
from fedperfit.cloud.deployment.up import processes, up
from fedperfit.cloud.enrolment.inviting import enroll
from fedperfit.cloud.enrolment.registration import enrolled, unenroll
from fedperfit.cloud.enrolment.superlink_nodes import find_node
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic
from fedperfit.protocol.system.flower import environment, executable, free_ports
from fedperfit.protocol.trust import authorities
from fedperfit.protocol.trust.bundle import read_bundle
from fedperfit.protocol.trust.certificates import Certificate, issue
from fedperfit.protocol.trust.enrolment import MAX_BYTES, PATH
from fedperfit.protocol.trust.node_key import NodeKey
from fedperfit.protocol.trust.pointer import parse_pointer
from fedperfit.protocol.trust.signing import read_signing_key

pytestmark = needs_nginx


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    home, settings = make_cloud(tmp_path_factory.mktemp("c $d") / "cloud")
    with running(home, patience=2):
        yield home, settings


def url(settings: CloudSettings, path: str) -> str:
    return f"https://127.0.0.1:{settings.port}{path}"


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/health", "/docs", "/openapi.json", "/v1/fleet", "/v1/fleet/", "/v1/fleet/unknown"),
        *("/v1/control/list-runs", "/v1/control/start-run", "/v1/control/register-node"),
        *("/v1/runtime/push-messages", "/v1/runtime/get-nodes", "/v1/runtime/acquire-task"),
        *("/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs", "//v1/control/list-runs"),
        *("/v1/fleet/pull-messages/../../control/list-runs", "/v1/fleet/pull-messages%2f..%2f..%2fcontrol"),
        *("/v1//control/list-runs", "/V1/control/list-runs"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_not_the_fleet_interface_is_not_there(cloud, path, method):
    home, settings = cloud
    with httpx.Client(verify=trusting(home)) as client:
        request = client.build_request(method, url(settings, "/"))
        request.url = request.url.copy_with(raw_path=path.encode())
        assert client.send(request).status_code in (403, 404)


def test_the_superlink_itself_is_on_the_loopback_only(cloud):
    open_ones = [c for p in processes(cloud[0]) for c in p.net_connections("inet") if c.status == "LISTEN"]
    listening = {connection.laddr.ip for connection in open_ones}
    assert listening == {"127.0.0.1"}


def test_an_unenrolled_caller_is_refused(cloud):
    home, settings = cloud
    for path in ("activate-node", "register-node", "pull-messages", "get-fab"):
        answer = httpx.post(
            url(settings, f"/v1/fleet/{path}"),
            headers={"content-type": "application/protobuf"},
            verify=trusting(home),
        )
        assert answer.status_code in (401, 403), answer.text


def connected(home: CloudHome, settings: CloudSettings) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", settings.port), timeout=30)
    return trusting(home).wrap_socket(raw, server_hostname="127.0.0.1")


def rss(members: list[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in members)


def settled(home: CloudHome) -> list[psutil.Process]:
    """The cloud's processes once they have all started and grow no more."""
    end, before = time.monotonic() + 60, 0
    while time.monotonic() < end:
        members = processes(home)
        now = rss(members)
        if abs(now - before) < 1 << 20:
            break
        before = now
        time.sleep(2)
    return members


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_costs_the_server_nothing(cloud, chunked):
    home, settings = cloud
    chunk, chunks = bytes(1 << 20), 100
    members = settled(home)
    before = most = rss(members)

    def body():
        nonlocal most
        for _ in range(chunks):
            most = max(most, rss(members))
            yield chunk

    headers = {} if chunked else {"content-length": str(chunks << 20)}
    try:
        answer = httpx.post(
            url(settings, "/v1/fleet/push-object"), content=body(), headers=headers, verify=trusting(home)
        )
    except httpx.WriteError:
        pass  # cut off while sending, before the answer could be read
    else:
        assert answer.status_code == 413
    assert max(most, rss(members)) - before < 20 << 20
    head = f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: {100 << 20}\r\n\r\n"
    with connected(home, settings) as secured:
        secured.sendall(head.encode())
        assert b" 413 " in secured.recv(200)


def test_a_slow_client_is_cut(cloud):
    home, settings = cloud
    with connected(home, settings) as secured:
        secured.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n1")
        try:
            answer = secured.recv(200)
        except ConnectionError:
            answer = b""
    assert answer == b"" or b" 408 " in answer


def supernode(folder: Path, home: CloudHome, address: str, key: Path | None, seconds: float) -> str:
    """Return the output of a SuperNode with this key within so many seconds."""
    (port,) = free_ports(1)
    command = [
        *(executable("flower-supernode"), "--superlink", address, "--max-retries", "1"),
        *("--root-certificates", str(home.tls / "ca.crt"), "--port", str(port)),
        *(("--auth-supernode-private-key", str(key)) if key else ()),
    ]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment(folder), stdin=subprocess.DEVNULL
        )
    try:
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end and "SuperNode ID" not in log.read_text():
            time.sleep(0.1)
        return log.read_text()
    finally:
        process.terminate()
        process.wait()


def test_enrolment_and_what_is_refused_without_it(cloud, tmp_path):
    home, _ = cloud
    enroll(home, "ada", tmp_path / "ada.bundle")
    bundle, key, other = read_bundle(tmp_path / "ada.bundle"), NodeKey(), NodeKey()
    good, foreign = tmp_path / "node.key", tmp_path / "foreign.key"
    key.write(good)
    other.write(foreign)
    assert find_node(home, key.public) is None
    assert [asked(home, bundle, one).status_code for one in (key, key, other)] == [200, 200, 403]
    assert enrolled(home) == {find_node(home, key.public): "ada"}, "Flower's own list says so too"
    assert find_node(home, other.public) is None
    assert "SuperNode ID" in supernode(tmp_path, home, bundle.address, good, 60)
    for wrong in (None, foreign):
        said = supernode(tmp_path, home, bundle.address, wrong, 60)
        assert "SuperNode ID" not in said
        assert "error" in said.lower() or "denied" in said.lower() or "auth" in said.lower()
    unenroll(home, "ada")
    assert enrolled(home) == {}
    assert find_node(home, key.public) is None
    assert asked(home, bundle, key).status_code == 403
    assert "SuperNode ID" not in supernode(tmp_path, home, bundle.address, good, 60)


def test_edges_are_told_which_authorities_to_trust(cloud):
    home, settings = cloud
    told = httpx.get(url(settings, authorities.PATH), verify=trusting(home)).content
    key = read_signing_key(home.folder / "signing.pem").public
    assert authorities.parse_authorities(told, key).pem == (home.tls / "ca.crt").read_text()


def test_requests_to_enrol_are_bounded(cloud):
    home, settings = cloud
    with httpx.Client(verify=trusting(home)) as client:
        assert client.post(url(settings, PATH), content=b" " * (MAX_BYTES + 1)).status_code == 413
        statuses = [client.post(url(settings, PATH), content=b"x").status_code for _ in range(40)]
    assert set(statuses) == {403, 429}


def test_a_second_up_is_refused(cloud):
    home, _ = cloud
    with pytest.raises(InputError, match="is up already"):
        up(home, lambda _: None, lambda: True)


def test_an_expired_certificate_is_refused_and_nothing_is_left(tmp_path):
    home, settings = make_cloud(tmp_path / "cloud")
    authority = Certificate((home.tls / "ca.crt").read_bytes(), (home.tls / "ca.key").read_bytes())
    expired = issue(authority, ["127.0.0.1", "localhost"], life=timedelta(hours=-1))
    with running(home):
        write_atomic(home.tls / "server.crt", expired.certificate)
        write_atomic(home.tls / "server.key", expired.key)
        proxy = next(p for p in processes(home) if "nginx: master" in " ".join(p.cmdline()))
        subprocess.run(["kill", "-HUP", str(proxy.pid)], check=True)
        time.sleep(1)
        with pytest.raises(httpx.ConnectError, match="certificate has expired"):
            httpx.get(url(settings, "/"), verify=trusting(home))
        said = supernode(tmp_path, home, f"127.0.0.1:{settings.port}", None, 30)
        assert "SuperNode ID" not in said
        assert processes(home)
    assert processes(home) == []


def test_a_killed_up_is_cleaned_up_by_the_next(tmp_path):
    home, _ = make_cloud(tmp_path / "cloud")
    process = subprocess.Popen(
        [executable("fedperfit-cloud"), "up", str(home.folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert "up at" in process.stdout.readline()
    finally:
        process.kill()
        process.wait()
    assert processes(home)
    with running(home):
        assert processes(home)
    assert processes(home) == []


def test_init_and_settings_are_one_line_when_wrong(tmp_path):
    home, settings = make_cloud(tmp_path / "cloud")
    assert read_cloud(home) == settings
    with pytest.raises(InputError, match="already holds a cloud"):
        init(home, "quickstart", {})
    with pytest.raises(InputError, match="no cloud here"):
        read_cloud(CloudHome(tmp_path))
    path = home.folder / "cloud.toml"
    good = path.read_text()
    for wrong, reason in (
        ("rounds = 0", "rounds=0"),
        ("surprise = 1", "unknown setting"),
        ("port = 99999", "port=99999"),
        ("= 3", r"cloud\.toml"),
    ):
        key = wrong.partition(" =")[0]
        path.write_text(
            "\n".join(line for line in good.splitlines() if not line.startswith(f"{key} =")) + f"\n{wrong}\n"
        )
        with pytest.raises(InputError, match=reason) as caught:
            read_cloud(home)
        assert "\n" not in str(caught.value)


def test_releases_and_their_pointer_are_files_for_everybody_and_nothing_else_is(cloud):
    """The signer keeps the pointer; what lies beside and above the releases is the control."""
    home, settings = cloud
    card = read_card(settings.base_model)
    header = ShiftHeader(settings.shape(card), settings.task, card.fingerprint, settings.rounds)
    release = ask_for_release(home, Shift.identity(header.shape, seed=1), header)
    write_atomic(home.folder / "releases" / "notes.txt", b"not for edges")
    with httpx.Client(verify=trusting(home)) as client:

        def got(path: str) -> httpx.Response:
            request = client.build_request("GET", url(settings, "/"))
            request.url = request.url.copy_with(raw_path=path.encode())
            return client.send(request)

        pointer = parse_pointer(got("/releases/in-force.json").content)
        pointer.check_signed_from(release.key)
        assert (pointer.version, pointer.digest) == (release.version, release.digest)
        file = got(f"/releases/{release.version:08d}.safetensors")
        assert file.content == release.to_bytes()
        assert len(file.content) == pointer.size
        assert "immutable" in file.headers["cache-control"]
        for path in (
            *("/releases/", "/releases", "/releases/notes.txt", "/releases/00000009.safetensors"),
            *("/releases/../signing.pem", "/releases/..%2fsigning.pem", "/releases/%2e%2e/signing.pem"),
            *("/releases/../tls/ca.key", "/signing.pem", "/releases/in-force.json/"),
        ):
            assert got(path).status_code == 404, path
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert client.request(method, url(settings, "/releases/in-force.json")).status_code in (403, 405)

"""What code in the sandbox learns of the owner and reaches on the network, beside the same code outside."""

import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.edge.deployment.sandboxes import inside, outside

from fedperfit.edge.sandbox.uplink import SOCKET, Uplink

LEARN = """
import json, os, pwd, socket
processes = [open(f"/proc/{pid}/cmdline").read() for pid in os.listdir("/proc") if pid.isdigit()]
print(json.dumps({
    "environment": dict(os.environ), "hostname": socket.gethostname(), "home": os.path.expanduser("~"),
    "users": [one.pw_name for one in pwd.getpwall()], "uid": os.getuid(), "processes": processes,
    "etc": sorted(os.listdir("/etc")),
}))
"""


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    value = secrets.token_hex(8)
    monkeypatch.setenv("OWNERS_TOKEN", value)
    return value


def test_guard_off_the_environment_the_machine_and_its_processes_are_read(secret: str) -> None:
    told = json.loads(outside(LEARN))
    assert told["environment"]["OWNERS_TOKEN"] == secret
    assert told["hostname"] == socket.gethostname()
    assert told["home"] == str(Path.home())
    assert len(told["users"]) > 1
    assert any("pytest" in line for line in told["processes"])


def test_guard_on_none_of_it_is(secret: str) -> None:
    told = json.loads(inside(LEARN, shown={}))
    assert set(told["environment"]) <= {
        *("PATH", "HOME", "LANG", "PWD", "PYTHONPATH", "PYTHONSAFEPATH", "FLWR_HOME"),
        *("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK", "RAY_USAGE_STATS_ENABLED", "RAY_DEDUP_LOGS"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION",
    }
    assert secret not in json.dumps(told)
    assert (told["hostname"], told["home"], told["users"]) == ("edge", "/home/edge", ["edge"])
    assert told["uid"] == 1000
    assert len(told["processes"]) <= 4, "bubblewrap, our first program, this one"
    assert not any("pytest" in line for line in told["processes"])
    assert set(told["etc"]) <= {
        *("passwd", "group", "hosts", "nsswitch.conf", "ssl", "alternatives"),
        *("ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    }


REACH = """
import json, socket, sys
def reached(family, address):
    with socket.socket(family) as one:
        one.settimeout(5)
        try:
            one.connect(address)
            one.sendall(b"x")
            return one.recv(100).decode()
        except OSError as error:
            return ""
named = [(name, int(port)) for name, port in (one.rsplit(":", 1) for one in sys.argv[2:])]
print(json.dumps({
    **{f"{host}:{port}": reached(socket.AF_INET, (host, port)) for host, port in named},
    "abstract": reached(socket.AF_UNIX, "\\0" + sys.argv[1]),
}))
"""


@contextmanager
def answering(family: int, address: object, said: bytes) -> Iterator[socket.socket]:
    with socket.socket(family) as server:
        server.bind(address)  # type: ignore[arg-type]
        server.listen()

        def serve() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                with one:
                    one.recv(1)
                    one.sendall(said)

        threading.Thread(target=serve, daemon=True).start()
        yield server
        server.shutdown(socket.SHUT_RDWR)


def own_address() -> str:
    """This machine's address on its network; that of the loopback where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        name: str = one.getsockname()[0]
        return name


def test_only_the_enrolled_address_is_reached(tmp_path: Path) -> None:
    """Neither other ports of the loopback, nor of the machine, nor abstract sockets, as on a desktop."""
    abstract = secrets.token_hex(8)
    with (
        answering(socket.AF_INET, ("0.0.0.0", 0), b"other") as other,
        answering(socket.AF_INET, ("127.0.0.1", 0), b"cloud") as cloud,
        answering(socket.AF_UNIX, f"\0{abstract}", b"desktop"),
        Uplink(tmp_path / "uplink", f"127.0.0.1:{cloud.getsockname()[1]}"),
    ):
        port = other.getsockname()[1]
        names = [f"127.0.0.1:{port}", f"{own_address()}:{port}", f"127.0.0.1:{cloud.getsockname()[1]}"]
        told = json.loads(outside(REACH, abstract, *names))
        assert set(told.values()) == {"other", "cloud", "desktop"}, "guard off, all is reached"
        names.append("127.0.0.1:8443")
        told = json.loads(inside(REACH, abstract, *names, shown={}, uplink=tmp_path / "uplink" / SOCKET))
        assert {where: answer for where, answer in told.items() if answer} == {"127.0.0.1:8443": "cloud"}
        told = json.loads(inside(REACH, abstract, *names, shown={}))
        assert set(told.values()) == {""}, "nor the cloud, without an uplink"


def test_the_machines_interfaces_are_not_there() -> None:
    code = "import os, socket; print(sorted(name for _, name in socket.if_nameindex()))"
    assert inside(code, shown={}) == "['lo']"
    assert os.listdir("/sys/class/net") != ["lo"] or outside(code) == "['lo']"

"""A cloud on free ports of the loopback, up for as long as a test needs it."""

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fedperfit.cloud.deployment.home import CloudHome, init
from fedperfit.cloud.deployment.up import up
from fedperfit.protocol.system.flower import free_ports
from fedperfit.protocol.trust.bundle import Bundle
from fedperfit.protocol.trust.enrolment import PATH, EnrolmentRequest
from fedperfit.protocol.trust.node_key import NodeKey

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None, reason="nginx is not installed"
)
_TRIAL = ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
CONFINES = shutil.which("bwrap") is not None and subprocess.run(_TRIAL, check=False).returncode == 0
"""Whether this machine lets runs be confined."""
needs_bwrap = pytest.mark.skipif(not CONFINES, reason="bubblewrap is missing, or not allowed its namespaces")
SMALL: dict[str, object] = {
    "update-basis": "none",  # whole shifts, as the fake clients of these tests send
    "rounds": 3,
    "personal-epochs": 2,
    "collective-max-items": 8,
    "least-items": 4,
    "clients": 3,
    "connect-seconds": 120.0,
    "deadline-seconds": 120.0,
}


def make_cloud(folder: Path, **changed: object) -> tuple[CloudHome]:
    port, superlink = free_ports(2)
    home = CloudHome(folder)
    places = {"host": "127.0.0.1", "port": port, "superlink-port": superlink}
    return home, init(home, "quickstart", SMALL | places | changed)


@contextmanager
def running(home: CloudHome, patience: int = 15) -> Iterator[None]:
    """The cloud up in a thread; its failure to start is raised here."""
    ready, stop = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            up(home, lambda _: ready.set(), stop.is_set, patience=patience, unconfined=not CONFINES)
        except BaseException as error:
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        ready.wait()
        if failed:
            raise failed[0]
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def trusting(home: CloudHome) -> ssl.SSLContext:
    """Trust the certificate of the cloud's authority, as an edge does."""
    return ssl.create_default_context(cafile=str(home.tls / "ca.crt"))


def asked(home: CloudHome, bundle: Bundle, key: NodeKey) -> httpx.Response:
    """Ask the cloud to register a key, as an edge does."""
    request = EnrolmentRequest.signed(bundle.name, bundle.token, key).model_dump_json()
    return httpx.post(f"https://{bundle.address}{PATH}", content=request, verify=trusting(home), timeout=60)

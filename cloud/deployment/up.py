"""Running the SuperLink and the reverse proxy in front of it until told to stop."""

import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import httpx
import psutil
from filelock import FileLock, Timeout

from fedperfit.cloud.deployment.certificate_authority import mend_certificate, take_over
from fedperfit.cloud.deployment.confinement import confined
from fedperfit.cloud.deployment.connection import superlink_address, trusting, write_connection
from fedperfit.cloud.deployment.home import REGISTRAR_SOCKET, CloudHome, read_cloud
from fedperfit.cloud.deployment.proxy import proxy_config, write_proxy
from fedperfit.cloud.deployment.settings import CloudSettings, host_and_port, is_loopback
from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.system.files import sweep
from fedperfit.protocol.system.flower import SUPEREXEC, executable, free
from fedperfit.protocol.system.processes import Children, marked, wait_until

MARK = "FEDPERFIT_CLOUD"
"""Environment variable that every process of a cloud has set to its folder."""
_START_SECONDS = 60.0
_COMING_SECONDS = 15.0
"""Longest wait for an `up` that was started just now."""
_LOCK = ".up.lock"
_PROTOBUF = {"content-type": "application/protobuf"}


@dataclass(frozen=True)
class Ready:
    """The state of a cloud that is up."""

    address: str
    """Address by which edges reach the cloud."""


def up(
    home: CloudHome,
    on_ready: Callable[[Ready], None],
    stopping: Callable[[], bool],
    patience: int = 15,
    *,
    unconfined: bool = False,
) -> None:
    """Run a cloud until told to stop; then no process that was started is left.

    Processes that a killed `up` left running are stopped first.

    Args:
        home: The cloud.
        on_ready: Called once all is up.
        stopping: Returns whether to stop.
        patience: Seconds a client may be silent within a request.
        unconfined: Whether runs are executed where the cloud's keys can be read.

    Raises:
        InputError: If this cloud is up already, nginx is not installed, or runs cannot be confined.
        RunFailed: If a program does not start, or dies.
    """
    settings = read_cloud(home)
    try:
        with FileLock(home.folder / _LOCK, timeout=0.5):
            _stop_left_over(home)
            _run(home, settings, on_ready, stopping, patience, unconfined)
    except Timeout:
        raise InputError(f"{home.folder}: this cloud is up already") from None


def superlink_ready(home: CloudHome, settings: CloudSettings) -> bool:
    """Return whether the SuperLink answers, asked behind the proxy.

    Args:
        home: The cloud.
        settings: Its settings.

    Raises:
        RunFailed: If it obeys somebody without a token.
    """
    url = f"https://{superlink_address(settings)}"
    with httpx.Client(verify=trusting(home), timeout=5, trust_env=False) as client:
        try:
            if not client.get(f"{url}/health").is_success:
                return False
            refused = client.post(f"{url}/v1/control/list-runs", headers=_PROTOBUF)
        except httpx.HTTPError:
            return False
    if refused.status_code != httpx.codes.UNAUTHORIZED:
        raise RunFailed(f"the SuperLink obeys callers without a token ({refused.status_code}); it must not")
    return True


def superlink_command(home: CloudHome, settings: CloudSettings) -> list[str]:
    """Return the command that runs the SuperLink in Flower's folder.

    Args:
        home: The cloud.
        settings: Its settings.
    """
    tls = home.tls.absolute()
    return [
        *(sys.executable, "-P", "-m", "fedperfit.cloud.deployment.superlink"),
        *(str(home.control_token.absolute()), "--enable-supernode-auth", "--isolation", "process"),
        *("--superexec-auth-secret-file", str(home.superexec_secret.absolute())),
        *("--host", "127.0.0.1", "--port", str(settings.superlink_port)),
        *("--ssl-ca-certfile", str(tls / "ca.crt"), "--ssl-certfile", str(tls / "server.crt")),
        *("--ssl-keyfile", str(tls / "server.key"), "--database", "sqlite:///state.db"),
    ]


def superexec_command(home: CloudHome, settings: CloudSettings) -> list[str]:
    """Return the command that runs SuperExec, which starts the ServerApp of every run.

    Args:
        home: The cloud.
        settings: Its settings.
    """
    return [
        *(executable(SUPEREXEC), "--runtime-api-address", superlink_address(settings)),
        *("--root-certificates", str((home.tls / "ca.crt").absolute())),
        *("--superexec-auth-secret-file", str(home.superexec_secret.absolute())),
    ]


def registrar_command(home: CloudHome) -> list[str]:
    """Return the command that runs the registrar of a cloud."""
    module = "fedperfit.cloud.enrolment.registrar"
    return [sys.executable, "-P", "-m", module, str(home.folder.absolute())]


def wait_for_superlink(home: CloudHome, settings: CloudSettings) -> None:
    """Wait until the SuperLink answers.

    Args:
        home: The cloud.
        settings: Its settings.

    Raises:
        InputError: If this cloud is neither up nor coming up.
    """
    started = time.monotonic()

    def given_up() -> bool:
        return not held(home) and time.monotonic() - started > _COMING_SECONDS

    wait_until(lambda: superlink_ready(home, settings) or given_up(), _START_SECONDS)
    if not superlink_ready(home, settings):
        raise InputError(
            f"{home.folder}: this cloud is not up; start it with fedperfit-cloud up {quote(str(home.folder))}"
        )


def held(home: CloudHome) -> bool:
    """Return whether an `up` holds this cloud."""
    try:
        with FileLock(home.folder / _LOCK, timeout=0):
            return False
    except Timeout:
        return True


def _run(
    home: CloudHome,
    settings: CloudSettings,
    on_ready: Callable[[Ready], None],
    stopping: Callable[[], bool],
    patience: int,
    unconfined: bool,
) -> None:
    ports = {"port": settings.port, "superlink-port": settings.superlink_port}
    ports |= {"metrics-port": settings.metrics_port} if settings.metrics_port else {}
    for name, number in ports.items():
        own = name == "port" and is_loopback(settings.host)
        if not free(number, settings.host if own else "127.0.0.1"):
            raise InputError(
                f"{name}={number} is in use, or host is no address of this machine; stop what uses it, or "
                "change cloud.toml"
            )
    from fedperfit.cloud.deployment.signer import signer_command, signer_ready

    sweep(home.flower)
    take_over(home, settings)
    mend_certificate(home, settings)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    proxy = write_proxy(home, settings, root=root, patience=patience)
    write_connection(home, settings)
    superexec = superexec_command(home, settings)
    if not unconfined:
        model = Path(settings.base_model)
        shown = [home.tls / "ca.crt", home.superexec_secret, *([model] if model.is_dir() else [])]
        superexec = confined(home, superexec, shown=shown)
    environment = {**home.environment(), MARK: str(home.folder.resolve())}
    with Children() as children:
        for name, command, ready in (
            ("signer", signer_command(home), lambda: signer_ready(home)),
            ("superlink", superlink_command(home, settings), lambda: superlink_ready(home, settings)),
            ("registrar", registrar_command(home), lambda: registrar_ready(home)),
            ("superexec", superexec, lambda: True),
            ("proxy", proxy, lambda: _proxy_ready(home, settings)),
        ):
            log = home.logs / f"{name}.log"
            child = children.start(
                *(name, command),
                log=log,
                environment=environment,
                folder=home.flower,
                sandboxed=name == "superexec" and not unconfined,
            )

            def started(child=child, ready=ready) -> bool:  # type: ignore[no-untyped-def]
                return child.process.poll() is not None or stopping() or ready()

            if not wait_until(started, _START_SECONDS) or child.process.poll() is not None:
                raise RunFailed(f"the {name} did not start: {child.last_words()}")
        on_ready(Ready(settings.address))
        wait_until(lambda: stopping() or children.dead() is not None, float("inf"))
        dead = children.dead()
        if dead is not None and not stopping():
            raise RunFailed(f"the {dead.name} ended (see {dead.log}): {dead.last_words()}")


def registrar_ready(home: CloudHome) -> bool:
    """Return whether the registrar takes connections."""
    if not home.registrar.is_dir():
        return False
    folder = os.open(home.registrar, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            return one.connect_ex(f"/proc/self/fd/{folder}/{REGISTRAR_SOCKET}") == 0
    finally:
        os.close(folder)


def _proxy_ready(home: CloudHome, settings: CloudSettings) -> bool:
    context = trusting(home)
    host = settings.host if is_loopback(settings.host) else "127.0.0.1"
    try:
        response = httpx.get(
            f"https://{host_and_port(host, settings.port)}/", verify=context, timeout=1, trust_env=False
        )
        return response.status_code == 404
    except httpx.HTTPError:
        return False


def processes(home: CloudHome) -> list[psutil.Process]:
    """List every process of this cloud, whoever started it, and its descendants."""
    # nginx writes its title over its environment, so it is known by its configuration
    family: set[psutil.Process] = set()
    for process in marked(MARK, str(home.folder.resolve()), command=str(proxy_config(home))):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            family.update([process, *process.children(recursive=True)])
    return [process for process in family if process.pid != os.getpid()]


def _stop_left_over(home: CloudHome) -> None:
    """Kill what a killed `up` left, all suspended first, because nginx replaces a worker that dies."""
    left_over = processes(home)
    for action in (psutil.Process.suspend, psutil.Process.kill):
        for process in left_over:
            with suppress(psutil.NoSuchProcess):
                action(process)
    psutil.wait_procs(left_over, timeout=10)

"""Checks of what a cloud runs: its ports, its programs, and the way to it from outside."""

from collections.abc import Callable, Iterator
from shlex import quote

import psutil

from fedperfit.cloud.deployment.connection import trusting
from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.cloud.deployment.signer import signer_ready
from fedperfit.cloud.deployment.up import held, processes, registrar_ready, superlink_ready
from fedperfit.protocol.doctor.findings import Finding, ok, warning, wrong
from fedperfit.protocol.doctor.network import port, reach
from fedperfit.protocol.system.errors import FedperfitError, count_of


def programs(home: CloudHome, settings: CloudSettings) -> Iterator[Finding]:
    """Check the ports, and where the cloud is up whether all of it answers.

    Args:
        home: The cloud.
        settings: Its settings.
    """
    up, own = held(home), processes(home)
    named = quote(str(home.folder))
    if not up:
        yield warning("up", "this cloud is not up", f"fedperfit-cloud up {named}")
        if own:
            yield _left_over(own, named)
    pids = {process.pid for process in own}
    ports = {"port": settings.port, "superlink-port": settings.superlink_port}
    for name, number in {**ports, "metrics-port": settings.metrics_port}.items():
        if number:
            yield port(number, name, own=pids, up=up)
    if not up:
        return
    yield _answers("signer", lambda: signer_ready(home), home)
    yield _answers("superlink", lambda: superlink_ready(home, settings), home)
    yield _answers("registrar", lambda: registrar_ready(home), home)
    advice = f"check the firewall, the name's addresses and {home.logs / 'proxy.log'}"
    yield from reach(settings.host, settings.port, trusting(home), advice)


def _left_over(own: list[psutil.Process], named: str) -> Finding:
    several = ", ".join(str(process.pid) for process in own)
    said = f"a killed `up` left {count_of(len(own), 'process', 'processes')}: {several}"
    return wrong("left over", said, f"fedperfit-cloud up {named} stops them first")


def _answers(name: str, ready: Callable[[], bool], home: CloudHome) -> Finding:
    advice = f"wait, if `up` was started just now; else start it again, and see {home.logs / name}.log"
    try:
        if ready():
            return ok(name, "answers")
    except (FedperfitError, OSError) as error:
        return wrong(name, str(error), advice)
    return wrong(name, "does not answer", advice)

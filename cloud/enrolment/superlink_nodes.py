"""The nodes that the SuperLink knows: registering one, taking its right away, finding one by its key."""

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from fedperfit.cloud.deployment.connection import superlink_address, trusting
from fedperfit.cloud.deployment.home import CONNECTION, CloudHome, read_cloud
from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.flower import executable

_SECONDS = 60.0
"""Longest time that the SuperLink may take."""


def register_node(home: CloudHome, key: str) -> int:
    """Register a node; return Flower's id of it.

    Args:
        home: The cloud, which must be up.
        key: Public key of the node, in OpenSSH form.

    Raises:
        RunFailed: If Flower did not; a key that was ever registered is not registered again.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "node.pub"
        path.write_text(f"{key}\n")
        return int(_flower(home, "register", str(path))["node-id"])


def unregister_node(home: CloudHome, node: int) -> None:
    """Take away a node's right to take part.

    Args:
        home: The cloud, which must be up.
        node: Flower's id of the node.

    Raises:
        RunFailed: If Flower did not.
    """
    _flower(home, "unregister", str(node))


def find_node(home: CloudHome, key: str) -> int | None:
    """Return Flower's id of the node that is registered with a key; None if there is none.

    Flower's command tells no keys, so the SuperLink is asked directly.

    Args:
        home: The cloud, which must be up.
        key: Public key of the node, in OpenSSH form.

    Raises:
        RunFailed: If the SuperLink does not answer.
    """
    from fedperfit.protocol.system.flower_internals import LIST_NODES, node_keys

    url = f"https://{superlink_address(read_cloud(home))}{LIST_NODES}"
    token = home.control_token.read_text()
    headers = {"content-type": "application/protobuf", "authorization": f"Bearer {token}"}
    try:
        answer = httpx.post(url, headers=headers, verify=trusting(home), timeout=_SECONDS, trust_env=False)
    except httpx.HTTPError as error:
        raise RunFailed(f"the SuperLink did not list its nodes: {error}") from None
    if not answer.is_success:
        raise RunFailed(f"the SuperLink did not list its nodes: status {answer.status_code}")
    return node_keys(answer.content).get(key)


def _flower(home: CloudHome, action: str, argument: str) -> dict[str, str]:
    command = [executable("flwr"), "supernode", action, argument, CONNECTION, "--format", "json"]
    try:
        done = subprocess.run(
            command,
            env=home.environment(),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(f"Flower did not {action} the node within {_SECONDS:g} s") from None
    try:
        answer: dict[str, str] = json.loads(done.stdout)
    except ValueError:
        answer = {}
    if done.returncode or not answer.get("success"):
        output = (done.stderr + done.stdout).strip().splitlines()
        reason = answer.get("error-message") or (output[-1] if output else "no reason given")
        raise RunFailed(f"Flower did not {action} the node: {reason}")
    return answer

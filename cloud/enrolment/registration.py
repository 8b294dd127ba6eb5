"""Enrolment of a person's machine: a key for its node, known to the SuperLink, and a bundle to hand over."""

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from fedperfit.cloud.deployment.home import CONNECTION, CloudHome, read_cloud
from fedperfit.cloud.deployment.release_store import CloudReleases
from fedperfit.cloud.deployment.up import wait_for_superlink
from fedperfit.cloud.enrolment.policy import offered
from fedperfit.protocol.model.base_model import read_card
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json
from fedperfit.protocol.system.flower import executable
from fedperfit.protocol.trust.bundle import NAME, Bundle


def enroll(home: CloudHome, name: str, out: Path) -> Bundle:
    """Register a new node and write its bundle.

    Args:
        home: The cloud.
        name: Name of the client.
        out: File of the bundle, which must not exist.

    Raises:
        InputError: If the name is bad or taken, the file exists, the settings leave the shape of the shift
            open, or the cloud is not up.
    """
    settings = read_cloud(home)
    if not NAME.fullmatch(name):
        raise InputError(
            f"name={name!r}: expected at most 64 letters, digits and ._-, not beginning with . or -"
        )
    record = home.node(name)
    if record.exists():
        raise InputError(f"{name} is already enrolled; unenroll it first")
    if out.exists():
        raise InputError(f"{out}: already exists")
    signing = CloudReleases(home.folder).key()
    policy = offered(home, settings, signing)
    wait_for_superlink(home, settings)
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    bundle = Bundle(
        name=name,
        address=settings.address,
        authority=(home.tls / "ca.crt").read_text(),
        node_key=private.decode(),
        release_key=signing.public,
        task=settings.task,
        base_model=settings.base_model,
        fingerprint=read_card(settings.base_model).fingerprint,
        policy=json.dumps(policy),
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "node.pub"
        path.write_bytes(public + b"\n")
        node = _flower(home, "register", str(path))["node-id"]
    bundle.write(out)
    write_json(record, {"name": name, "node": str(node), "key": public.decode()})
    return bundle


def unenroll(home: CloudHome, name: str) -> None:
    """Take away a node's right to take part.

    Args:
        home: The cloud.
        name: Name of the client.

    Raises:
        InputError: If it is not enrolled.
    """
    record = home.node(name)
    if not record.exists():
        raise InputError(f"{name} is not enrolled")
    _flower(home, "unregister", read_json(record)["node"])
    record.unlink()


def enrolled(home: CloudHome) -> dict[int, str]:
    """Return the names of all enrolled clients by node id."""
    records = [read_json(path) for path in sorted((home.folder / "nodes").glob("*.json"))]
    return {int(record["node"]): record["name"] for record in records}


def _flower(home: CloudHome, action: str, argument: str) -> dict[str, str]:
    command = [executable("flwr"), "supernode", action, argument, CONNECTION, "--format", "json"]
    done = subprocess.run(
        command, env=home.environment(), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    try:
        answer: dict[str, str] = json.loads(done.stdout)
    except ValueError:
        answer = {}
    if done.returncode or not answer.get("success"):
        output = (done.stderr + done.stdout).strip().splitlines()
        reason = answer.get("error-message") or (output[-1] if output else "no reason given")
        raise InputError(f"Flower did not {action} the node: {reason}")
    return answer

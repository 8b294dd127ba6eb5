"""The SuperNode of a joined edge: its command, its sandbox and its log."""

import secrets
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedperfit.edge.deployment.endpoint import BRIDGE_KEY
from fedperfit.edge.deployment.home import Home, cloud_address, read_settings
from fedperfit.edge.sandbox import CLOUD_PORT
from fedperfit.edge.sandbox.confinement import SHOWN, confined
from fedperfit.edge.sandbox.traffic import Traffic
from fedperfit.edge.sandbox.uplink import SOCKET, Uplink
from fedperfit.edge.vault.keys import PASSPHRASE_VARIABLE
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import toml_value, write_atomic
from fedperfit.protocol.system.flower import (
    CLIENT_APP,
    OTHER_APPS,
    SUPEREXEC,
    environment,
    executable,
    free_ports,
)
from fedperfit.protocol.system.processes import Child, Children

_PROGRAMS = "programs"
"""Folder of the programs that SuperExec starts."""
_CONFIG = "config.toml"
"""File that tells the ClientApp where the agent's socket is."""
_RUNTIME_PORT = 9094
"""Port of the sandbox's loopback on which SuperNode and ClientApp talk."""


@dataclass(frozen=True)
class SuperNode:
    """What runs Flower's SuperNode for a person's folder."""

    home: Home
    """Folder of the person."""
    unconfined: bool
    """Whether it runs outside of the sandbox."""

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Keep the sandbox's way to the cloud open, and count what passes.

        Raises:
            InputError: If the system cannot confine it, or the agent cannot be reached from a sandbox.
        """
        self.home.bridge.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.unconfined:
            yield
            return
        if read_settings(self.home).tcp:
            raise InputError(
                f"{self.home.folder / 'agent.json'}: tcp: the sandbox has no network to reach the agent by"
            )
        confined([], shown=self._shown)  # fails here, before the agent has loaded the base model
        with Traffic(self.home.traffic) as traffic, Uplink(self.home.uplink, self._address(), traffic.count):
            yield

    def start(self, children: Children, command: Sequence[str] = ()) -> Child:
        """Start it.

        Args:
            children: Holder of the process.
            command: What to run in its place; empty: Flower's SuperNode.

        Raises:
            InputError: If the system cannot confine it.
        """
        command = command or self.command()
        if self.unconfined:
            variables = environment(self.home.node / "flower")
            variables.pop(PASSPHRASE_VARIABLE, None)
        else:
            command = confined(command, shown=self._shown, uplink=self.home.uplink / SOCKET)
            variables = {}
        return children.start(
            *("supernode", command),
            log=self.home.supernode_log,
            environment=variables,
            needs=SUPEREXEC,
            piped=True,
            sandboxed=not self.unconfined,
        )

    def command(self) -> list[str]:
        """Return the command that runs the SuperNode and its SuperExec, which share a new secret.

        Without one, any account of this machine could take the cloud's messages from the SuperNode's port and
        answer them. Flower uses a secret only where the SuperNode does not start SuperExec itself. SuperExec
        finds programs of ours and no others, so that the run's code is not executed.
        """
        _write_programs(self.home.node / _PROGRAMS)
        write_atomic(self.home.node / "superexec.secret", secrets.token_bytes(32))
        if self.unconfined:
            node, bridge = self.home.node.absolute(), self.home.bridge.absolute()
            address, (port,) = self._address(), free_ports(1)
        else:
            node, bridge = SHOWN / "node", SHOWN / "bridge"
            address, port = f"127.0.0.1:{CLOUD_PORT}", _RUNTIME_PORT
        config = f"{BRIDGE_KEY} = {toml_value(str(bridge))}\n"
        write_atomic(self.home.node / _CONFIG, config.encode())
        secret = ("--superexec-auth-secret-file", str(node / "superexec.secret"))
        supernode = [
            *(sys.executable, "-P", "-m", "fedperfit.edge.supernode_app", "--superlink", address),
            *("--root-certificates", str(node / "ca.crt")),
            *("--auth-supernode-private-key", str(node / self.home.node_key.name)),
            *("--node-config", str(node / _CONFIG)),
            *("--host", "127.0.0.1", "--port", str(port), "--isolation", "process", *secret),
        ]
        superexec = [
            *(executable(SUPEREXEC), "--insecure"),
            *("--runtime-api-address", f"127.0.0.1:{port}", *secret),
        ]
        ours = f"export PATH={shlex.quote(str(node / _PROGRAMS))}"  # where they cannot be run, nothing is
        return ["sh", "-c", f"{ours}; {shlex.join(superexec)} --parent-pid $$ & exec {shlex.join(supernode)}"]

    @property
    def _shown(self) -> dict[str, Path]:
        return {"node": self.home.node, "bridge": self.home.bridge}

    def _address(self) -> str:
        return cloud_address(self.home)


def _write_programs(folder: Path) -> None:
    """Write what runs in place of Flower's programs: the installed ClientApp, and nothing for other tasks."""
    installed = [sys.executable, "-P", "-m", "fedperfit.edge.installed_app"]
    scripts = {CLIENT_APP: f'exec {shlex.join(installed)} "$@"'}
    scripts |= {name: f"echo 'refused: no {name} runs at an edge' >&2; exit 1" for name in OTHER_APPS}
    for name, line in scripts.items():
        write_atomic(folder / name, f"#!/bin/sh\n{line}\n".encode())
        (folder / name).chmod(0o700)
